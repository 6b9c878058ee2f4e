"""A backbone that gives features and a head that gives logits in float32."""

from __future__ import annotations

from typing import Any

import timm
import timm.data
import torch
from torch import Tensor, nn

from ftc.errors import InputError


class Classifier(nn.Module):
    """Features, then logits.

    The head runs in float32 outside autocast: in bfloat16 its logits have 8 bits of mantissa and margins
    collapse into ties.

    Args:
        backbone: images (N, channels, H, W) → features (N, D).
        head: features (N, D), float32 → logits (N, C).
        head_name: the head's name in the timm model it came from, for `timm_state_dict`.
    """

    def __init__(self, backbone: nn.Module, head: nn.Linear, head_name: str = "head") -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.head_name = head_name

    @property
    def num_features(self) -> int:
        """Width D of the features."""
        return self.head.in_features

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, D) and logits (N, C), both float32."""
        features = self.backbone(images).float()
        with torch.autocast(features.device.type, enabled=False):
            return features, self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C), float32."""
        return self.features_and_logits(images)[1]

    @property
    def data_config(self) -> dict[str, Any]:
        """timm's data configuration: input size, mean, std, interpolation, crop."""
        return timm.data.resolve_model_data_config(self.backbone)

    def timm_state_dict(self) -> dict[str, Tensor]:
        """Weights under the names of the plain timm model."""
        head = {f"{self.head_name}.{name}": value for name, value in self.head.state_dict().items()}
        return {**self.backbone.state_dict(), **head}

    def load_timm_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load weights named as in the plain timm model.

        Raises:
            RuntimeError: a missing or unexpected key, or a shape that differs.
        """
        prefix = f"{self.head_name}."
        head = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        self.head.load_state_dict(head)
        self.backbone.load_state_dict({k: v for k, v in state.items() if not k.startswith(prefix)})


def create_classifier(
    name: str, num_classes: int, pretrained: bool = False, kwargs: dict[str, Any] | None = None
) -> Classifier:
    """A timm model, split into backbone and head.

    Args:
        name: a registered timm model.
        num_classes: width C of the head.
        pretrained: whether timm loads its pre-trained weights.
        kwargs: further arguments of `timm.create_model`.

    Raises:
        InputError: no such model, an argument it does not take, or a head that is not one linear layer.
    """
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **(kwargs or {}))
    except (RuntimeError, TypeError, ValueError) as error:
        near = timm.list_models(f"*{name.split('.')[0].strip('*')}*")[:5]
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise InputError(f"model.name={name}: {' '.join(str(error).split())}{hint}") from error
    head = model.get_classifier()
    head_name = model.pretrained_cfg.get("classifier", "")
    if not isinstance(head, nn.Linear) or not isinstance(head_name, str):
        raise InputError(f"model.name={name}: its head is not one linear layer; choose a model whose head is")
    model.reset_classifier(0)
    return Classifier(model, head, head_name)
