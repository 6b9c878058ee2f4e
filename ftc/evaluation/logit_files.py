"""Files of logits, as other programs save them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from attrs import frozen
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.inputs import as_tensor, check_finite

FIELDS = ("logits", "target", "source_logits")


@frozen(eq=False)
class SavedLogits:
    """The arrays of a file of logits.

    Attributes:
        logits: logits of the fine-tuned model, (N, C).
        target: head columns, (N,), or None.
        source_logits: logits of the source model for the same samples, (N, C), or None.
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
            a structured array or of logits alone; or a folder of ``logits.npy`` and the like. Nothing is
            unpickled.

    Raises:
        InputError: a file that is none of these, or has no logits.
    """
    read = _read_folder if path.is_dir() else _READERS.get(path.suffix)
    if read is None:
        raise InputError(f"{key}={path}: choose a file that ends in {', '.join(_READERS)}")
    try:
        arrays = read(path)
    except (OSError, ValueError, pa.ArrowException, SafetensorError, zipfile.BadZipFile) as error:
        raise InputError(f"{key}={path}: cannot be read ({' '.join(str(error).split())})") from error
    if "logits" not in arrays:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise InputError(f"{key}={path}: no array 'logits' in it, only {found}; save them under that name")
    tensors = {name: as_tensor(arrays[name]) for name in FIELDS if name in arrays}
    for name, values in tensors.items():
        if len(values) != len(tensors["logits"]):
            raise InputError(
                f"{key}={path}: {len(values)} rows of {name} but {len(tensors['logits'])} of logits; "
                "save one a sample"
            )
        if name != "target" and values.ndim == 2:
            under_key(f"{key}={path}", check_finite, values)
    return SavedLogits(**tensors)


def _read_npz(path: Path) -> Mapping[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name in FIELDS}


def _read_npy(path: Path) -> Mapping[str, Any]:
    array = np.load(path, allow_pickle=False)
    if array.dtype.names is None:
        return {"logits": array}
    return {name: np.ascontiguousarray(array[name]) for name in array.dtype.names}


def _read_folder(path: Path) -> Mapping[str, Any]:
    files = {name: path / f"{name}.npy" for name in FIELDS}
    return {n: np.load(file, allow_pickle=False) for n, file in files.items() if file.is_file()}


def _read_parquet(path: Path) -> Mapping[str, Any]:
    table = pq.read_table(path)
    columns = {name: table[name].combine_chunks() for name in FIELDS if name in table.column_names}
    arrays = {}
    for name, column in columns.items():
        if column.null_count:
            raise ValueError(f"column {name} has empty cells")
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            lengths = np.diff(column.offsets.to_numpy())
            if len(set(lengths.tolist())) > 1:
                raise ValueError(f"rows of {name} have {lengths.min()} to {lengths.max()} values")
        values = column.flatten() if hasattr(column, "flatten") and name != "target" else column
        array = values.to_numpy(zero_copy_only=False)
        arrays[name] = array if name == "target" else array.reshape(len(column), -1)
    return arrays


_READERS: dict[str, Any] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".safetensors": load_file,
    ".parquet": _read_parquet,
}
