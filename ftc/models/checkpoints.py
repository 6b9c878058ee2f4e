"""Reading of weights from our own files and from checkpoints of other programs."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftc.errors import InputError
from ftc.models.classifier import Classifier
from ftc.models.weights import load_metadata, load_tensors


@dataclass(frozen=True)
class LoadReport:
    """A report on what `load_checkpoint` read.

    Attributes:
        path: the file.
        format: the kind of file, in words.
        missing: parameters and buffers that the file lacks; they kept their values.
        unexpected: further entries of the file, under its own names; they were left out.
        metadata: metadata of a safetensors file such as ``calibrated.safetensors``, with JSON parsed.
    """

    path: Path
    format: str
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report in lines for people to read."""
        lines = [f"{self.path}: {self.format}"]
        if self.missing:
            lines.append(f"not in the file, left as they were: {_some(self.missing)}")
        if self.unexpected:
            lines.append(f"not in the model, left out: {_some(self.unexpected)}")
        gamma = self.metadata.get("gamma")
        if isinstance(gamma, float):
            calibrator = self.metadata.get("calibrator", "a calibrator")
            lines.append(f"calibrated: γ {gamma:.2f} of {calibrator} is folded into its head")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


def load_checkpoint(
    path: Path, classifier: Classifier, strict: bool = True, any_head: bool = False
) -> LoadReport:
    """Load weights of this or another program into a classifier, all or none.

    The file is `.safetensors` or written by ``torch.save``. It holds a state dict with the names of the timm
    (or torchvision) model, or with ``backbone.…`` and ``head.…`` as in the paper's released files, or it is a
    Lightning checkpoint of `ftc.FineTuneModule`. The state dict may be alone or under ``state_dict``,
    ``model`` or their averages (``state_dict_ema``, ``model_ema``), which take precedence, and its names may
    have the prefix of a wrapped model. Nothing in a file is ever executed: only tensors and plain values are
    read.

    Args:
        path: the file.
        classifier: changed in place; it stays as it was after an error.
        strict: whether a parameter or buffer that the file lacks is an error. Batch norm's counters may
            always be missing.
        any_head: whether a head of another width, or none, keeps its initial values.

    Raises:
        InputError: no such file, a file that is no checkpoint or would run code, a head of another width, a
            shape that differs, or missing parameters.
    """
    container, content, metadata = _read(path)
    layout, found = _timm_names(content, classifier.head_name)
    expected = classifier.timm_state_dict()
    known = {name: tensor for name, (_, tensor) in found.items() if name in expected}
    head = f"{classifier.head_name}."
    of_head = [name for name in expected if name.startswith(head)]
    if any_head and any(n not in known or known[n].shape != expected[n].shape for n in of_head):
        known |= {name: expected[name] for name in of_head}
    _check_shapes(path, known, expected, f"{classifier.head_name}.weight")
    needed = [name for name in expected if not name.endswith("num_batches_tracked")]
    missing = tuple(name for name in needed if name not in known)
    used = {original for name, (original, _) in found.items() if name in expected}
    unexpected = tuple(name for name in content if name not in used)
    if missing and (strict or len(missing) == len(needed)):
        has = f"; the file has {_some(unexpected)}" if unexpected else ""
        keep = "; source.strict=false keeps their initial values" if len(missing) < len(needed) else ""
        raise InputError(
            f"{path}: {len(missing)} of {len(needed)} weights are missing: {_some(missing)}{has}; choose the "
            f"model.name that it was saved from{keep}"
        )
    classifier.load_timm_state_dict({**expected, **known})
    return LoadReport(path, f"{container}, {layout}", missing, unexpected, metadata)


# Keys under which training programs put their weights, averaged ones first.
_CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")


def _read(path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The kind of a file, its weights by name, and its metadata."""
    if path.suffix == ".safetensors":
        return "safetensors", load_tensors(path), load_metadata(path)
    content = _torch_content(path)
    container = "state dict"
    if isinstance(content, Mapping):
        key = next((key for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if key is not None:
            lightning = "pytorch-lightning_version" in content
            container = "Lightning checkpoint" if lightning else f"state dict under {key}"
            content = content[key]
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        keys = f" (it has {_some(map(str, content))})" if isinstance(content, Mapping) and content else ""
        raise InputError(f"{path}: no state dict in it{keys}; save the model's state_dict() alone")
    return container, {str(name): value for name, value in content.items()}, {}


def _torch_content(path: Path) -> Any:
    try:
        # timm's training checkpoints carry their command line, which only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # damaged files raise almost anything
        called = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and called:
            raise InputError(
                f"{path}: refused, since reading it would run {called[1]}; where you trust it, convert its "
                "tensors to safetensors"
            ) from error
        raise InputError(
            f"{path}: no checkpoint, or a damaged one ({type(error).__name__}); fetch it again, or "
            "convert it to safetensors"
        ) from error


def _timm_names(content: Mapping[str, Any], head_name: str) -> tuple[str, dict[str, tuple[str, Tensor]]]:
    """The kind of names, and each tensor with its own name, by its name in the timm model."""
    names = {name: name for name, value in content.items() if isinstance(value, Tensor)}
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in names):
            names = {name.removeprefix(prefix): original for name, original in names.items()}
    if any(name.startswith("classifier.backbone.") for name in names):
        names = _below(names, "classifier.")
    layout = "names of the timm model"
    if any(name.startswith("backbone.") for name in names):
        layout = "names of backbone and head"
        head = {f"{head_name}.{name}": original for name, original in _below(names, "head.").items()}
        names = _below(names, "backbone.") | head
    return layout, {name: (original, content[original]) for name, original in names.items()}


def _below(names: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {n.removeprefix(prefix): original for n, original in names.items() if n.startswith(prefix)}


def _check_shapes(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], head: str) -> None:
    wrong = [name for name, tensor in found.items() if tensor.shape != expected[name].shape]
    if head in wrong and found[head].shape[1:] == expected[head].shape[1:]:
        width, wanted = len(found[head]), len(expected[head])
        raise InputError(
            f"the head in {path} has {width} columns, the partition has {wanted}: set "
            f"data.num_classes={width}, or choose a checkpoint with {wanted}"
        )
    if wrong:
        shapes = [tuple(tensors[wrong[0]].shape) for tensors in (found, expected)]
        more = f" ({len(wrong)} such shapes)" if len(wrong) > 1 else ""
        raise InputError(
            f"{path}: {wrong[0]} has shape {shapes[0]}, the model wants {shapes[1]}{more}; choose the "
            "model.name that it was saved from"
        )


def _some(names: Iterable[str], most: int = 3) -> str:
    """The first few of many names."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
