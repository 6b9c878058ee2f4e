"""A run's folder: everything its figures and reports are redrawn from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from filelock import FileLock, Timeout
from torch import Tensor

from ftc.config.commands import TrainConfig
from ftc.errors import InputError
from ftc.export.bundle import FINE_TUNED_WEIGHTS, SOURCE_WEIGHTS
from ftc.files import remove_parts, written_whole
from ftc.models import save_weights
from ftc.partition import PartitionManifest
from ftc.reporting.figures import write_figures
from ftc.results import CONFIG_FILE, CURVE_FIELDS, FILE_NAME, RunRecord

_STAGES = "stages"
_BEGUN = "begun.json"
PARTITION_FILE = "partition.json"

# By split, by field: see `ftc.callbacks.PredictionRecorder`.
Predictions = dict[str, dict[str, Tensor]]


class RunFolder:
    """Where a run writes.

    Args:
        path: made by `start`.

    Raises:
        InputError: something that is no run folder is there. An unfinished or overwritten run is removed
            before the new one starts; nothing else ever is.
    """

    def __init__(self, path: Path) -> None:
        foreign = path.is_dir() and any(path.iterdir()) and not (path / CONFIG_FILE).is_file()
        if path.is_file() or foreign:
            raise InputError(f"run_dir={path}: exists and is no run folder; choose another or remove it")
        self.path = path

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Nobody else writes here meanwhile.

        Raises:
            InputError: somebody else does.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0):
                yield
        except Timeout as error:
            raise InputError(
                f"run_dir={self.path}: another run is at work there; wait for it, or choose another folder"
            ) from error

    def start(self, config: TrainConfig, identity: Mapping[str, Any], manifest: PartitionManifest) -> None:
        """Begin anew: the folder is there with what it is begun with, or not at all.

        Args:
            config: becomes ``config.yaml``.
            identity: what a run that goes on with this one must be equal in; JSON types.
            manifest: becomes ``partition.json``, which ``partition=file`` reads.
        """
        old, new = (self.path.with_name(f".{self.path.name}-{state}") for state in ("old", "new"))
        for leftover in (old, new):
            shutil.rmtree(leftover, ignore_errors=True)
        (new / _STAGES).mkdir(parents=True)
        (new / _STAGES / _BEGUN).write_text(json.dumps(identity))
        text = yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)
        (new / CONFIG_FILE).write_text(text)
        manifest.write(new / PARTITION_FILE)
        if self.path.exists():
            self.path.rename(old)
        new.rename(self.path)
        shutil.rmtree(old, ignore_errors=True)

    @property
    def checkpoint(self) -> Path:
        """``checkpoints/last.ckpt``: weights and everything else that fine-tuning goes on from."""
        return self.path / "checkpoints" / "last.ckpt"

    def begun(self) -> dict[str, Any] | None:
        """What an unfinished run was begun with, see `start`; None where there is none."""
        path = self.path / _STAGES / _BEGUN
        if (self.path / FILE_NAME).is_file() or not path.is_file():
            return None
        return json.loads(path.read_text())

    def go_on(self) -> None:
        """Remove what an interrupted run left half-written."""
        remove_parts(self.path)

    def finished_stages(self) -> set[str]:
        """The stages whose result is kept."""
        return {path.stem for path in (self.path / _STAGES).glob("*.pt")}

    def stage_result(self, name: str) -> dict[str, Any]:
        """What `keep_stage` kept."""
        return torch.load(self.path / _STAGES / f"{name}.pt", weights_only=True)

    def keep_stage(self, name: str, result: Mapping[str, Any]) -> None:
        """Keep a finished stage's result, tensors and plain types, until the run is finished."""
        with written_whole(self.path / _STAGES / f"{name}.pt") as temporary:
            torch.save(dict(result), temporary)

    def finish(self, record: RunRecord) -> None:
        """Write ``results.json``: a folder with it is a finished run, which keeps no stages."""
        record.write(self.path)
        shutil.rmtree(self.path / _STAGES, ignore_errors=True)

    def keep_source(self, weights: Path) -> None:
        """``source.safetensors``."""
        with written_whole(self.path / SOURCE_WEIGHTS) as temporary:
            shutil.copyfile(weights, temporary)

    def keep_fine_tuned(self, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """``fine_tuned.safetensors``, with what the model is: ``model``, ``head``, ``class_names``."""
        save_weights(self.path / FINE_TUNED_WEIGHTS, weights, metadata)

    def keep_predictions(self, stages: Mapping[str, Predictions], record: RunRecord) -> None:
        """``predictions.safetensors``: ``stage/split/field``."""
        flat = {
            f"{stage}/{split}/{field}": value
            for stage, splits in stages.items()
            for split, fields in splits.items()
            for field, value in fields.items()
        }
        metadata = {"partition": record.partition.model_dump(mode="json")}
        save_weights(self.path / "predictions.safetensors", flat, metadata)

    def keep_figures(self, record: RunRecord) -> None:
        """``figures/`` of what has no epochs."""
        write_figures(self.path / "figures", record)

    def keep_epochs(self, history: Sequence[Mapping[str, Any]], record: RunRecord) -> None:
        """``epochs.parquet``, scalars and curve by epoch, and the figures."""
        rows = [{name: v for name, v in row.items() if name != "curve"} for row in history]
        names = dict.fromkeys(name for row in rows for name in row)
        columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
        for field in CURVE_FIELDS:
            columns[f"curve_{field}"] = [getattr(row["curve"], field).tolist() for row in history]
        with written_whole(self.path / "epochs.parquet") as temporary:
            pq.write_table(pa.table(columns), temporary)
        write_figures(self.path / "figures", record, rows)
