"""Weights in safetensors, named as in the plain timm model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftc.errors import InputError
from ftc.files import written_whole
from ftc.models.classifier import Classifier
from ftc.partition import ClassPartition


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write weights as safetensors, whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, dict(metadata or {}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: no such file, or no safetensors file.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except SafetensorError as error:
        raise InputError(f"{path}: no safetensors file: {str(error).splitlines()[0]}") from error


def load_weights(path: Path, classifier: Classifier) -> None:
    """Load weights written by `save_weights` into a classifier.

    Raises:
        InputError: no such file, no safetensors file, or weights of another architecture.
    """
    try:
        classifier.load_timm_state_dict(load_tensors(path))
    except RuntimeError as error:
        raise InputError(f"{path}: not weights of this model: {str(error).splitlines()[0]}") from error


def fold_gamma(
    state: Mapping[str, Tensor], bias: str, partition: ClassPartition, gamma: float
) -> dict[str, Tensor]:
    """A state dict with γ added to the head's bias of every absent class.

    What loads it predicts as the calibrated model does. A head needs a bias to carry γ.

    Args:
        state: the model's weights.
        bias: name of the head's bias among them.
        partition: seen, absent and other columns.
        gamma: in logits.

    Raises:
        InputError: the head has no bias.
    """
    state = {name: value.clone() for name, value in state.items()}
    if bias not in state:
        raise InputError("the head has no bias to fold γ into; choose a model whose head has one")
    absent = torch.tensor(partition.absent, dtype=torch.int64, device=state[bias].device)
    state[bias][absent] += gamma
    return state


def cached_tensors(
    identity: Mapping[str, Any], cache: Path, compute: Callable[[], Mapping[str, Tensor]]
) -> tuple[Path, bool]:
    """Tensors computed once and kept: the file that holds them, computed only where no run has done so.

    Jobs that want the same file at once wait for the one that computes it.

    Args:
        identity: everything that shaped the tensors, JSON types; its hash names the file.
        cache: folder of such files.
        compute: makes the tensors.

    Returns:
        The file, and whether it was computed just now.
    """
    content = json.dumps(identity, sort_keys=True)
    path = cache / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.safetensors"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        fresh = not path.is_file()
        if fresh:
            save_weights(path, compute(), {"identity": content})
    return path, fresh


def interpolate_weights(
    source: Mapping[str, Tensor], fine_tuned: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """θ0 + α (θ1 − θ0) for every weight and buffer; counters, which are whole numbers, are θ1's."""
    return {
        name: torch.lerp(source[name].to(value), value, alpha) if value.is_floating_point() else value
        for name, value in fine_tuned.items()
    }
