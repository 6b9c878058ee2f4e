"""Files of logits, as other programs save them."""

from __future__ import annotations

import math
import textwrap
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from attrs import frozen
from safetensors import safe_open
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.inputs import as_tensor, check_finite

FIELDS = ("logits", "target", "source_logits")


@frozen(eq=False)
class SavedLogits:
    """The arrays of a file of logits.

    Attributes:
        logits: logits of the fine-tuned model, (N, C), float32 or float64, finite.
        target: head columns, (N,), int64, or None.
        source_logits: logits of the source model for the same samples, (N, C), as `logits`, or None.
    """

    logits: Tensor
    target: Tensor | None = None
    source_logits: Tensor | None = None


def under_key(key: str, function: Any, *arguments: Any) -> Any:
    """Call a function; its `InputError`, where it raises one, is raised with the file's key in front."""
    try:
        return function(*arguments)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error


def read_logits(key: str, path: Path) -> SavedLogits:
    """Read ``logits`` and, where the file has them, ``target`` and ``source_logits``.

    Args:
        key: name of the file in error messages.
        path: a ``.npz``, ``.safetensors`` or ``.parquet`` file with arrays of these names; a ``.npy`` file of
            a structured array or of logits alone; or a folder of ``logits.npy`` and the like. Suffixes may
            be in capitals. Nothing is unpickled. Logits in half precision become float32, and targets in
            floating point, where they are whole numbers, int64.

    Raises:
        InputError: a file that is none of these, or is damaged; no logits in it; an array of another shape,
            of another length than the logits, or of no such numbers; logits that are not finite.
    """
    where = f"{key}={path}"
    arrays = _read(key, path)
    if "logits" not in arrays:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise InputError(f"{where}: no array 'logits' in it, only {found}; save them under that name")
    checks = {"logits": _logits, "target": _target, "source_logits": _logits}
    tensors = {name: under_key(where, checks[name], name, arrays[name]) for name in FIELDS if name in arrays}
    logits = tensors["logits"]
    for name, values in tensors.items():
        if len(values) != len(logits):
            raise InputError(
                f"{where}: {len(values)} rows of {name} but {len(logits)} of logits; save one a sample"
            )
        if values.ndim == 2 and values.shape[1] != logits.shape[1]:
            raise InputError(
                f"{where}: {values.shape[1]} columns of {name} but {logits.shape[1]} of logits; save logits "
                "of the same classes"
            )
    return SavedLogits(**tensors)


def _logits(name: str, values: Any) -> Tensor:
    logits = under_key(name, as_tensor, values)
    if logits.ndim != 2 or not logits.numel():
        raise InputError(f"{name} have shape {tuple(logits.shape)}; save one row a sample, (N, C)")
    if not logits.is_floating_point():
        raise InputError(f"{name} have dtype {logits.dtype}; save floating-point logits, not predictions")
    logits = logits if logits.itemsize >= 4 else logits.float()
    check_finite(logits) if name == "logits" else under_key(name, check_finite, logits)
    return logits


def _target(name: str, values: Any) -> Tensor:
    target = under_key(name, as_tensor, values)
    if target.ndim != 1 or target.is_complex() or target.dtype == torch.bool:
        raise InputError(
            f"{name} has shape {tuple(target.shape)} and dtype {target.dtype}; save one integer column id a "
            "sample, (N,)"
        )
    if target.is_floating_point():
        target = target.double()
        # Also what is not finite, or too large for int64.
        others = ~((target == target.trunc()) & (target.abs() < 2**63))
        if others.any():
            row = int(others.nonzero()[0])
            raise InputError(f"{name} of row {row} is {target[row].item()}; save integer column ids")
    return target.long()


def _read(key: str, path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        return _read_folder(key, path)
    if not path.is_file():
        raise InputError(f"{key}={path}: no such file")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{key}={path}: choose a file that ends in {', '.join(_READERS)}")
    return _read_by(reader, key, path)


def _read_by(reader: Callable[[Path], Any], key: str, path: Path) -> Any:
    """What a reader makes of a file."""
    try:
        return reader(path)
    except Exception as error:  # damaged files raise almost anything
        reason = textwrap.shorten(str(error), 300, placeholder=" …") or type(error).__name__
        raise InputError(
            f"{key}={path}: cannot be read ({reason}); save its arrays of numbers again"
        ) from error


def _read_folder(key: str, path: Path) -> Mapping[str, Any]:
    files = {file.stem: file for file in _read_by(_files, key, path) if file.suffix.lower() == ".npy"}
    return {name: _read_by(_read_array, key, files[name]) for name in FIELDS if name in files}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def _read_npz(path: Path) -> Mapping[str, Any]:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in FIELDS:
                with archive.open(member) as file:
                    arrays[name] = _array(file, member.file_size)
    return arrays


def _read_npy(path: Path) -> Mapping[str, Any]:
    array = _read_array(path)
    if array.dtype.names is None:
        return {"logits": array}
    return {name: array[name] for name in array.dtype.names if name in FIELDS}


def _read_array(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return _array(file, path.stat().st_size)


def _array(file: Any, size: int) -> np.ndarray:
    """The array of an opened ``.npy`` file of ``size`` bytes, without memory for more than the file has."""
    version = np.lib.format.read_magic(file)
    # Versions above 1 differ in how the names of fields are encoded, which tells nothing of the size.
    header = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    told, left = math.prod(shape) * dtype.itemsize, size - file.tell()
    if not dtype.hasobject and (told > left or min(shape, default=0) < 0):
        raise ValueError(f"its header tells of an array of shape {shape}, but it has {left:,} bytes")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if name in FIELDS}  # noqa: SIM118


def _read_parquet(path: Path) -> Mapping[str, Any]:
    with pq.ParquetFile(path) as file:
        names = [name for name in FIELDS if name in file.schema_arrow.names]
        table = file.read(names)
    return {name: _column(name, table[name].combine_chunks()) for name in names}


def _column(name: str, column: Any) -> np.ndarray:
    """The values of a column, (N,), or of a column of lists of one length, (N, C)."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    is_list = any(test(column.type) for test in _LISTS)
    kind = column.type.value_type if is_list else column.type
    if not pa.types.is_floating(kind) and not pa.types.is_integer(kind):
        raise ValueError(f"column {name} holds {column.type}, not numbers or lists of numbers")
    values = column.flatten() if is_list else column
    if column.null_count or values.null_count:
        raise ValueError(f"column {name} has empty cells")
    array = values.to_numpy(zero_copy_only=False)
    if not is_list:
        return array
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if len(lengths) and lengths.min() < lengths.max():
        raise ValueError(f"rows of {name} have {lengths.min()} to {lengths.max()} values")
    return array.reshape(len(column), lengths[0] if len(lengths) else 0)


_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_READERS: dict[str, Callable[[Path], Mapping[str, Any]]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
}
