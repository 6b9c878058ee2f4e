"""Weights of our own: safetensors, named as in the plain timm model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftc.errors import InputError
from ftc.files import remove_parts, written_whole
from ftc.models.classifier import Classifier
from ftc.partition import ClassPartition

# Key of the metadata of our own files.
_CHECKSUM = "ftc_checksum"

# Interrupted trainings that a cache keeps checkpoints of.
_MOST_CHECKPOINTS = 10


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Write weights as safetensors, whole or not at all.

    Args:
        path: the file.
        state: tensors by name.
        metadata: a description of the weights; values that are no text become JSON. Their checksum is added.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    described = {**(metadata or {}), _CHECKSUM: checksum(tensors)}
    texts = {name: v if isinstance(v, str) else json.dumps(v) for name, v in described.items()}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, texts)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: no such file, no safetensors file, or one of `save_weights` that has changed since.
    """
    with _reading(path):
        tensors = load_file(path)
    written = _texts(path).get(_CHECKSUM)
    if written is not None and written != checksum(tensors):
        raise InputError(f"{path}: is damaged: its tensors are not those that were written; make it anew")
    return tensors


def load_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file, with JSON parsed; what is no JSON stays text.

    Raises:
        InputError: no such file, or no safetensors file.
    """
    return {name: _parsed(text) for name, text in _texts(path).items() if name != _CHECKSUM}


def begun_columns(path: Path) -> set[int]:
    """The columns in a run's ``source.safetensors`` that images of new classes began; other files have none.

    Raises:
        InputError: no such file, or no safetensors file.
    """
    identity = load_metadata(path).get("identity")
    return set(identity.get("new_columns", ())) if isinstance(identity, dict) else set()


def tensor_shape(path: Path, name: str) -> tuple[int, ...]:
    """The shape of a tensor of a safetensors file, which is not loaded.

    Raises:
        InputError: no such file, no safetensors file, or one without that tensor.
    """
    with _reading(path), safe_open(path, "pt") as file:
        return tuple(file.get_slice(name).get_shape())


def _texts(path: Path) -> dict[str, str]:
    with _reading(path), safe_open(path, "pt") as file:
        return file.metadata() or {}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # damaged files raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: no safetensors file: {reason}") from error


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def load_weights(path: Path, classifier: Classifier) -> None:
    """Load weights written by `save_weights` into a classifier.

    Raises:
        InputError: no such file, no safetensors file, or weights of another architecture.
    """
    try:
        classifier.load_timm_state_dict(load_tensors(path))
    except RuntimeError as error:
        raise InputError(f"{path}: not weights of this model: {str(error).splitlines()[0]}") from error


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of a state dict on the CPU, which no training changes."""
    return {name: value.detach().cpu().clone() for name, value in state.items()}


@contextmanager
def other_weights(classifier: Classifier, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Give a classifier other weights inside the block, and its own back when the block ends.

    Nothing is given back after an error, which ends the run: under FSDP, giving back would wait for processes
    that have stopped.

    Args:
        classifier: changed in place.
        state: the other weights, named as in the plain timm model.
    """
    own = copied(classifier.timm_state_dict())
    classifier.load_timm_state_dict(dict(state))
    yield
    classifier.load_timm_state_dict(own)


def fold_calibration(
    state: Mapping[str, Tensor], head: str, partition: ClassPartition, gamma: float, temperature: float = 1.0
) -> dict[str, Tensor]:
    """A state dict whose model gives the logits (z + γ·1_U) / T: W / T and (b + γ·1_U) / T.

    A model that loads it predicts as the calibrated model does (docs/definitions.md, "Notation").

    Args:
        state: the model's weights.
        head: name of the head among them.
        partition: seen, absent and other columns.
        gamma: γ in logits.
        temperature: T, above 0.

    Raises:
        InputError: the head has no bias.
    """
    state = {name: value.clone() for name, value in state.items()}
    bias = state.get(f"{head}.bias")
    if bias is None:
        raise InputError("the head has no bias to fold γ into; choose a model whose head has one")
    bias[torch.tensor(partition.absent, dtype=torch.int64, device=bias.device)] += gamma
    # Lengths of a cosine head's rows say nothing.
    slope = f"{head}.scale" if f"{head}.scale" in state else f"{head}.weight"
    for name in (slope, f"{head}.bias"):
        state[name] /= temperature
    return state


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """A digest of tensors: names, types, shapes and every byte."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _is_intact(path: Path, identity: str) -> bool:
    try:
        load_tensors(path)
        return _texts(path).get("identity") == identity
    except InputError:
        return False


def _forget_old_checkpoints(cache: Path) -> None:
    """Remove checkpoints of trainings that were stopped long ago; the latest stay, and those in use."""
    found = [(path.stat().st_mtime, path) for path in cache.glob("*.ckpt") if path.is_file()]
    for _, path in sorted(found, reverse=True)[_MOST_CHECKPOINTS:]:
        with suppress(Timeout), FileLock(path.with_suffix(".lock"), timeout=0, mode=0o666):
            path.unlink(missing_ok=True)


def cached_tensors(
    identity: Mapping[str, Any],
    cache: Path,
    compute: Callable[[Path], Mapping[str, Tensor]],
    tell: Callable[[str], object] = print,
) -> tuple[Path, bool]:
    """Compute tensors once and keep them in a file; later calls find the file.

    Jobs that want the same file at once wait for the one that computes it. A file that is damaged is computed
    again.

    Args:
        identity: everything that shapes the tensors, in JSON types; its hash names the file.
        cache: folder of such files.
        compute: function that makes the tensors. It gets the path of a checkpoint to go on from if it was
            interrupted before; the checkpoint is removed once the tensors are kept.
        tell: function that prints a line.

    Returns:
        The file, and whether it was computed just now.
    """
    content = json.dumps(identity, sort_keys=True)
    path = cache / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.safetensors"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock"), mode=0o666):
        fresh, checkpoint = not path.is_file(), path.with_suffix(".ckpt")
        if not fresh and not _is_intact(path, content):
            tell(f"{path}: is damaged; it is made again")
            fresh = True
        if fresh:
            remove_parts(cache, path.stem)
            tensors = compute(checkpoint)
            save_weights(path, tensors, {"identity": content})
            _forget_old_checkpoints(cache)
        checkpoint.unlink(missing_ok=True)
    return path, fresh
