"""Calibration of saved logits: files in, the table and the record of a run out."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from attrs import frozen
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ftc.assembly.instantiate import make
from ftc.calibrators import (
    Available,
    Calibrator,
    Interpolated,
    Oracle,
    OracleEvidence,
    SeenEvidence,
    UnlabelledEvidence,
    fit_all,
)
from ftc.calibrators.base import SeenData
from ftc.config.commands import CalibrateConfig, CalibratorsConfig
from ftc.errors import InputError
from ftc.evaluation.summary import (
    Bootstrap,
    Evaluation,
    calibrated_record,
    evaluate_outcomes,
    fine_tuned_record,
    with_intervals,
)
from ftc.functional import curve_of_outcomes, reduce_logits
from ftc.functional.outcomes import SEEN, as_tensor, check_finite, label_groups
from ftc.functional.statistics import keep_seen
from ftc.metrics import LogitScale
from ftc.partition import ClassPartition
from ftc.reporting.figures import write_figures
from ftc.reporting.tables import console, results_tables
from ftc.results import FILE_NAME, RunRecord
from ftc.versions import versions

FIELDS = ("logits", "target", "source_logits")
# Samples whose scales are computed at a time.
ROWS = 8192


@frozen(eq=False)
class SavedLogits:
    """What a file holds.

    Attributes:
        logits: of the fine-tuned model, (N, C).
        target: head columns, (N,), or None.
        source_logits: of the source model for the same samples, (N, C), or None.
    """

    logits: Tensor
    target: Tensor | None = None
    source_logits: Tensor | None = None


def run_calibration(config: CalibrateConfig) -> dict[str, Any]:
    """Fit the calibrators, print the table, write the run folder; a finished one is only printed again.

    Args:
        config: with ``run_dir`` filled in.

    Returns:
        The main scalars, for a sweep's table.

    Raises:
        InputError: a file that is not what it should be, or evidence that a calibrator misses.
    """
    assert config.run_dir is not None
    folder, out = Path(config.run_dir), console()
    finished = (folder / FILE_NAME).is_file() and not config.overwrite
    if finished:
        record = RunRecord.read(folder)
    else:
        files = {key: read_logits(key, path) for key, path in config.files().items()}
        partition = config.partition.of_width(files["eval"].logits.shape[1])
        record = calibrate_logits(config.name, files, partition, config.calibration)
        for key in ("train", "held_out"):
            dropped = _not_seen(files[key], partition) if key in files else 0
            if dropped:
                out.print(f"{key}: {dropped} samples are not of seen classes and take no part")
        write_figures(folder / "figures", record)
        # Last, because a folder with results is a finished run.
        record.write(folder)
    for table in results_tables(record):
        out.print(table)
    if finished:
        out.print("Finished before; nothing was computed. overwrite=true computes again.", style="yellow")
    out.print(f"Run folder: {folder}", soft_wrap=True)
    return record.scalars()


def calibrate_logits(
    name: str, files: Mapping[str, SavedLogits], partition: ClassPartition, config: CalibratorsConfig
) -> RunRecord:
    """The record of saved logits.

    Args:
        name: of the record.
        files: ``eval``, and optionally ``train``, ``held_out`` and ``pool``.
        partition: seen, absent and other columns.
        config: which calibrators, and how to report.

    Raises:
        InputError: names the file and the row, or the evidence that a calibrator misses.
    """
    calibrators = {key: make(f"calibration.methods.{key}", config.methods[key]) for key in config.use}
    for key, calibrator in calibrators.items():
        if isinstance(calibrator, Interpolated):
            raise InputError(
                f"calibration.use={config.use}: {key} moves weights, which saved logits do not have; "
                "leave it out, or use ftc.train"
            )
    available = _available(files, partition)
    evaluation = _evaluate(files["eval"], partition, config, calibrators, available)
    source = None
    source_logits = files["eval"].source_logits
    if source_logits is not None:
        of_source = SavedLogits(source_logits, files["eval"].target)
        source = fine_tuned_record(_evaluate(of_source, partition, config, {}, Available()), ("given",))
    return RunRecord(
        experiment=name,
        seed=None,
        partition=partition.to_dict(),
        versions=versions(),
        timing={},
        source=source,
        fine_tuned=fine_tuned_record(evaluation, ("given",)),
        calibrated={key: calibrated_record(result) for key, result in evaluation.calibrated.items()},
        deployed=None,
        num_samples=evaluation.num_samples,
    )


def _available(files: Mapping[str, SavedLogits], partition: ClassPartition) -> Available:
    seen: dict[SeenData, SeenEvidence] = {}
    origins: dict[SeenData, str] = {"train": "seen train", "held_out": "seen held out"}
    for on, origin in origins.items():
        if on in files:
            kept = _seen_only(on, files[on], partition)
            seen[on] = SeenEvidence.from_logits(
                kept.logits, kept.target, partition, kept.source_logits, origin
            )
    key = "pool" if "pool" in files else "eval"
    pool = files[key]
    arguments = (partition, pool.source_logits, f"unlabelled {key}", seen.get("held_out"))
    return Available(seen, _named(key, UnlabelledEvidence.from_logits, pool.logits, *arguments))


def _seen_only(key: str, saved: SavedLogits, partition: ClassPartition) -> SavedLogits:
    target = _labels(key, saved)
    logits, kept = _named(key, keep_seen, saved.logits, target, partition)
    source = None
    if saved.source_logits is not None:
        source, _ = _named(f"{key}, source_logits", keep_seen, saved.source_logits, target, partition)
    return SavedLogits(logits, kept, source)


def _not_seen(saved: SavedLogits, partition: ClassPartition) -> int:
    assert saved.target is not None
    return int((label_groups(saved.target, partition) != SEEN).sum())


def _evaluate(
    saved: SavedLogits,
    partition: ClassPartition,
    config: CalibratorsConfig,
    calibrators: Mapping[str, Calibrator[Any]],
    available: Available,
) -> Evaluation:
    target = _labels("eval", saved)
    outcomes = _named("eval", reduce_logits, saved.logits, target, partition, config.top_k)
    curve = curve_of_outcomes(outcomes, partition, config.average)
    scale = LogitScale(partition)
    for rows in torch.arange(len(target)).split(ROWS):
        scale.update(saved.logits[rows], target[rows])
    evaluated = OracleEvidence.from_logits(saved.logits, target, partition, "eval labels")
    available = Available(available.seen, available.unlabelled, evaluated=evaluated)
    fitted = dict(calibrators)
    if curve.num_samples["absent"]:
        fitted["oracle"] = Oracle(average=config.average)
    evaluation = evaluate_outcomes(
        0,
        outcomes,
        curve,
        None,
        fit_all(fitted, available),
        scale.compute(),
        {},
        partition,
        config.average,
    )
    if not config.bootstrap.replicates:
        return evaluation
    bootstrap = Bootstrap(**config.bootstrap.model_dump())
    return with_intervals(evaluation, outcomes, calibrators, available, bootstrap, partition, config.average)


def _labels(key: str, saved: SavedLogits) -> Tensor:
    if saved.target is None:
        raise InputError(f"{key}: no array 'target' in it; save the labels, one head column a sample")
    return saved.target


def _named(key: str, function: Any, *arguments: Any) -> Any:
    """The function's result; what it refuses is refused under the file's key."""
    try:
        return function(*arguments)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error


def read_logits(key: str, path: Path) -> SavedLogits:
    """Read ``logits`` and, where they are, ``target`` and ``source_logits``.

    Args:
        key: names the file in errors.
        path: ``.npz``, ``.safetensors`` or ``.parquet`` with arrays of these names; ``.npy``, a structured
            array, or logits alone; a folder of ``logits.npy`` and the like. Nothing is unpickled.

    Raises:
        InputError: a file that is none of these, or has no logits.
    """
    try:
        arrays = _read_folder(path) if path.is_dir() else _READERS[path.suffix](path)
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
            _named(f"{key}={path}", check_finite, values)
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
