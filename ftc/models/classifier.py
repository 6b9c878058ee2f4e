"""A backbone that gives features and a head that gives logits in float32."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import timm
import timm.data
import timm.models
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from ftc.errors import InputError
from ftc.hub import hub_within_reach
from ftc.models.heads import CosineHead

HeadKind = Literal["linear", "cosine"]


class Classifier(nn.Module):
    """A backbone and a head, called one after the other.

    The head runs in float32 outside autocast: in bfloat16 its logits would have 8 bits of mantissa, and
    margins would collapse into ties.

    Args:
        backbone: images (N, channels, H, W) → features (N, D).
        head: features (N, D), float32 → logits (N, C).
        head_name: the head's name in the timm model that it came from, for `timm_state_dict`.
        data_config: the preprocessing of images in timm's terms; by default timm's own for the backbone.
        origin: how to make the same model again without its weights, in JSON types, see
            `ftc.models.restore_classifier`; None for a model that nobody can describe.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Linear,
        head_name: str = "head",
        data_config: Mapping[str, Any] | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.head_name = head_name
        self.origin = origin
        self._data_config = data_config
        self.memory_format: torch.memory_format | None = None

    def use_channels_last(self) -> None:
        """Keep weights and images channels last, which makes most convolutions faster."""
        self.memory_format = torch.channels_last
        self.to(memory_format=torch.channels_last)

    def widen(self, num_classes: int) -> None:
        """Add columns of zeros to the head, up to ``num_classes``; those before them stay as they are."""
        old = self.head
        head = nn.Linear(old.in_features, num_classes, old.bias is not None, dtype=old.weight.dtype)
        with torch.no_grad():
            for name, value in old.named_parameters():
                wider = head.get_parameter(name).zero_()
                wider[: len(value)] = value
        self.head = head.to(old.weight.device)

    @property
    def num_features(self) -> int:
        """Width D of the features."""
        return self.head.in_features

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, D) and logits (N, C), both float32."""
        if self.memory_format is not None:
            images = images.contiguous(memory_format=self.memory_format)
        features = self.backbone(images).float()
        if not torch.is_autocast_enabled(features.device.type):
            # The same, without a block that older exporters cannot write.
            return features, self.head(features)
        with torch.autocast(features.device.type, enabled=False):
            return features, self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C), float32."""
        return self.features_and_logits(images)[1]

    @property
    def data_config(self) -> dict[str, Any]:
        """timm's data configuration: input size, mean, std, interpolation, crop."""
        if self._data_config is not None:
            return dict(self._data_config)
        return timm.data.resolve_model_data_config(self.backbone)

    @property
    def is_sharded(self) -> bool:
        """Whether this process has only a share of the weights."""
        return isinstance(self.head, FSDPModule)

    def shard(self, mesh: DeviceMesh) -> None:
        """Shard every weight over processes by FSDP, block by block; a second call changes nothing.

        From then on all processes must call `forward`, `timm_state_dict` and `load_timm_state_dict` together.

        Args:
            mesh: a mesh of one dimension: the processes that share the weights.
        """
        if self.is_sharded:
            return
        # Shards are slices of whole rows; images may stay channels last.
        self.to(memory_format=torch.contiguous_format)
        for module in (*_blocks(self.backbone), self.backbone, self.head):
            fully_shard(module, mesh=mesh)

    def reshard(self) -> None:
        """Let go of whole weights that a forward has gathered, so that `parameters` are those to train."""
        for module in (self.head, self.backbone):
            if isinstance(module, FSDPModule):
                module.reshard()

    def layers(self) -> dict[str, int]:
        """The depth of every name of `timm_state_dict`, from 0; the head is the deepest layer.

        A layer is an element of the backbone's outermost sequences, or what stands before the first one; what
        follows an element belongs to it.
        """
        blocks = list(_blocks(self.backbone))
        inside = {id(m): depth for depth, block in enumerate(blocks, 1) for m in block.modules()}
        layers: dict[str, int] = {}
        depth = 0
        for prefix, module in self.backbone.named_modules():
            depth = inside.get(id(module), depth)
            own = (*module._parameters, *module._buffers)
            layers |= {f"{prefix}.{name}" if prefix else name: depth for name in own}
        found = {name: layers.get(name, 0) for name in self.backbone.state_dict()}
        found |= {f"{self.head_name}.{name}": len(blocks) + 1 for name in self.head.state_dict()}
        ranks = {depth: rank for rank, depth in enumerate(sorted(set(found.values())))}
        return {name: ranks[depth] for name, depth in found.items()}

    def timm_state_dict(self) -> dict[str, Tensor]:
        """The weights under the names of the plain timm model; sharded ones are gathered on the CPU."""
        head = {f"{self.head_name}.{name}": value for name, value in self.head.state_dict().items()}
        state = {**self.backbone.state_dict(), **head}
        return {n: v.full_tensor().cpu() if isinstance(v, DTensor) else v for n, v in state.items()}

    def load_timm_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load weights named as in the plain timm model.

        Raises:
            RuntimeError: a missing or unexpected key, or a shape that differs.
        """
        prefix = f"{self.head_name}."
        head = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        backbone = {k: v for k, v in state.items() if not k.startswith(prefix)}
        self.reshard()  # what the last forward gathered would be stale
        for module, own in ((self.head, head), (self.backbone, backbone)):
            if isinstance(module, FSDPModule):
                options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
                set_model_state_dict(module, {**own}, options=options)
            else:
                module.load_state_dict(own)


def checkpoint_gradients(backbone: nn.Module, name: str) -> None:
    """Let a backbone compute activations again in the backward pass instead of keeping them.

    Raises:
        InputError: the model cannot.
    """
    network: Any = getattr(backbone, "visual", backbone)  # open_clip's image encoder
    try:
        network.set_grad_checkpointing(True)
    except (AssertionError, AttributeError, NotImplementedError) as error:
        raise InputError(f"grad_checkpointing=true: {name} cannot do it; leave it out") from error


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """The batch norms of a network."""
    return [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The elements of a network's outermost sequences: residual blocks, transformer layers, stages."""
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from (block for block in child if any(True for _ in block.parameters()))
        else:
            yield from _blocks(child)


def create_classifier(
    name: str,
    num_classes: int,
    pretrained: bool = False,
    kwargs: dict[str, Any] | None = None,
    head: HeadKind = "linear",
) -> Classifier:
    """Create a timm model, divided into backbone and head.

    Args:
        name: a registered timm model.
        num_classes: width C of the head.
        pretrained: whether timm loads its pre-trained weights; a head of another width than
            `pretrained_width` starts at random.
        kwargs: further arguments of `timm.create_model`.
        head: ``linear`` keeps the model's own head; ``cosine`` puts a `CosineHead` in its place.

    Raises:
        InputError: no such model, an argument it does not take, weights that cannot be fetched or read, or a
            head that is not one linear layer.
    """
    try:
        with hub_within_reach():
            model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **(kwargs or {}))
    except (OSError, SafetensorError, pickle.UnpicklingError) as error:
        raise _not_to_be_had(name, error) from error
    except Exception as error:  # timm's models raise almost anything on wrong arguments
        reason = " ".join(str(error).split()) or type(error).__name__
        near = timm.list_models(f"*{name.split('.')[0].strip('*')}*")[:5]
        hint = f"; near names: {', '.join(near)}" if near else ""
        if timm.is_model(name.split(".")[0]):
            hint = "; check model.kwargs, model.weights and model.input_size"
        raise InputError(f"model.name={name}: {reason}{hint}") from error
    linear = model.get_classifier()
    head_name = model.pretrained_cfg.get("classifier", "")
    if not isinstance(linear, nn.Linear) or not isinstance(head_name, str):
        raise InputError(f"model.name={name}: its head is not one linear layer; choose a model whose head is")
    if head == "cosine":
        linear = CosineHead(linear.in_features, num_classes)
    model.reset_classifier(0)
    own = {k: v for k, v in (kwargs or {}).items() if not k.startswith("pretrained_cfg")}
    origin = {
        "kind": "timm",
        # A model of the hub or of a folder is made again without either.
        "architecture": model.pretrained_cfg["architecture"],
        "arguments": {**_model_arguments(name), **own},
        "head": head,
    }
    return Classifier(model, linear, head_name, origin=origin)


def plain_timm_model(classifier: Classifier) -> nn.Module | None:
    """The same model as timm alone makes it, with its weights; None where timm has no such head."""
    origin = classifier.origin
    if origin is None or origin["kind"] != "timm" or origin["head"] != "linear":
        return None
    model = timm.create_model(
        origin["architecture"],
        num_classes=classifier.head.out_features,
        pretrained_cfg_overlay=classifier.data_config,
        **origin["arguments"],
    )
    model.load_state_dict(classifier.timm_state_dict())
    return model.eval()


def pretrained_width(name: str, kwargs: Mapping[str, Any] | None = None) -> int | None:
    """The number of classes of a timm model's pre-trained weights.

    With another width timm leaves the pre-trained head out, and the model's head starts at random. That is
    right before training, but wrong where the pre-trained model is used as it is.

    Args:
        name: the model.
        kwargs: further arguments of `timm.create_model`.

    Returns:
        The width; None for a model that timm does not know.

    Raises:
        InputError: a hub model whose configuration cannot be fetched.
    """
    config = _pretrained_config(name, kwargs or {})
    return None if config is None else config.num_classes


def label_names(name: str, kwargs: Mapping[str, Any] | None = None) -> tuple[str, ...] | None:
    """The class names of a timm model's pre-trained weights.

    Args:
        name: the model.
        kwargs: further arguments of `timm.create_model`.

    Returns:
        One name per column of the pre-trained head; None where timm has none.

    Raises:
        InputError: a hub model whose configuration cannot be fetched.
    """
    config = _pretrained_config(name, kwargs or {})
    names = None if config is None else config.label_names
    if isinstance(names, Mapping):  # by column, which JSON writes as text
        names = [names[column] for column in sorted(names, key=int)]
    return None if names is None or len(names) != config.num_classes else tuple(names)


def _pretrained_config(name: str, kwargs: Mapping[str, Any]) -> Any:
    """timm's ``PretrainedCfg``, as `timm.create_model` finds it."""
    try:
        given, variant, _ = _hub_config(name)
        if not timm.is_model(variant.split(".")[0]):
            return None
        given = kwargs.get("pretrained_cfg") if given is None else given
        return timm.models.resolve_pretrained_cfg(variant, given, kwargs.get("pretrained_cfg_overlay"))
    except OSError as error:
        raise _not_to_be_had(name, error) from error
    except (RuntimeError, TypeError, ValueError):
        # `create_classifier` reports what is wrong with the name or the arguments.
        return None


def _model_arguments(name: str) -> dict[str, Any]:
    """The arguments that a model of the hub or of a folder brings along; its width is another matter."""
    return {key: value for key, value in _hub_config(name)[2].items() if key != "num_classes"}


def _hub_config(name: str) -> tuple[Any, str, dict[str, Any]]:
    """Configuration of the weights (None for timm's own), architecture and arguments of a model."""
    source, variant = timm.models.parse_model_name(name)
    if source == "hf-hub":
        with hub_within_reach():
            given, variant, arguments = timm.models.load_model_config_from_hf(variant)
    elif source == "local-dir":
        from timm.models._hub import load_model_config_from_path

        given, variant, arguments = load_model_config_from_path(variant)
    else:
        return None, variant, {}
    return given, variant, arguments or {}


def _not_to_be_had(name: str, error: Exception) -> InputError:
    return InputError(
        f"model.name={name}: its pre-trained weights are not to be had ({type(error).__name__}); run once "
        "with network access, or name a file with model.weights=PATH"
    )
