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
import yaml
from filelock import FileLock, Timeout
from torch import Tensor

from ftc.config import TrainConfig
from ftc.errors import InputError
from ftc.files import written_whole
from ftc.manifest import SplitManifest
from ftc.models import save_weights
from ftc.reporting.figures import write_figures
from ftc.results import CONFIG_FILE, CURVE_FIELDS, RunRecord

# By split, by field: see `ftc.calibration.PredictionRecorder`.
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

    def start(self, config: TrainConfig) -> None:
        """Begin anew, with the configuration."""
        if self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True)
        with written_whole(self.path / CONFIG_FILE) as temporary:
            temporary.write_text(yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True))

    def keep_split(self, manifest: SplitManifest) -> None:
        """``split.json``, which ``partition=file`` reads."""
        manifest.write(self.path / "split.json")

    def keep_source(self, weights: Path) -> None:
        """``source.safetensors``."""
        with written_whole(self.path / "source.safetensors") as temporary:
            shutil.copyfile(weights, temporary)

    def keep_deployed(self, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """``checkpoints/calibrated.safetensors``; what is no text in the metadata becomes JSON."""
        text = {name: v if isinstance(v, str) else json.dumps(v) for name, v in metadata.items()}
        save_weights(self.path / "checkpoints" / "calibrated.safetensors", weights, text)

    def keep_predictions(self, stages: Mapping[str, Predictions], partition: Mapping[str, Any]) -> None:
        """``predictions.safetensors``: ``stage/split/field``."""
        flat = {
            f"{stage}/{split}/{field}": value
            for stage, splits in stages.items()
            for split, fields in splits.items()
            for field, value in fields.items()
        }
        save_weights(self.path / "predictions.safetensors", flat, {"partition": json.dumps(partition)})

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
