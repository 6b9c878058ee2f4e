"""Weights in safetensors, named as in the plain timm model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
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


def load_weights(path: Path, classifier: Classifier) -> None:
    """Load weights written by `save_weights` into a classifier.

    Raises:
        InputError: no such file, no safetensors file, or weights of another architecture.
    """
    try:
        classifier.load_timm_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{path}: not weights of this model: {str(error).splitlines()[0]}") from error


def fold_gamma(classifier: Classifier, partition: ClassPartition, gamma: float) -> dict[str, Tensor]:
    """The classifier's timm state dict with γ added to the head's bias of every absent class.

    What any timm user loads from it predicts as the calibrated model does. A head needs a bias to carry γ.

    Raises:
        InputError: the head has no bias.
    """
    state = {name: value.clone() for name, value in classifier.timm_state_dict().items()}
    bias = f"{classifier.head_name}.bias"
    if bias not in state:
        raise InputError("the head has no bias to fold γ into; choose a model whose head has one")
    absent = torch.tensor(partition.absent, dtype=torch.int64, device=state[bias].device)
    state[bias][absent] += gamma
    return state
