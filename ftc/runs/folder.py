"""The run folder, which holds everything that figures and reports are redrawn from."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from filelock import FileLock, Timeout
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

from ftc.config.commands import JobConfig
from ftc.errors import InputError
from ftc.export.bundle import FINE_TUNED_WEIGHTS, HEADS, SOURCE_WEIGHTS
from ftc.files import damage, flush, lock_beside, remove_parts, written_whole
from ftc.models import Classifier, description, save_weights
from ftc.partition import PartitionManifest
from ftc.reporting.figures import write_drawn, write_figures
from ftc.reporting.figures.style import Format
from ftc.reporting.tables import print_record
from ftc.results import CONFIG_FILE, CURVE_FIELDS, FILE_NAME, RunRecord

_STAGES = "stages"
_BEGUN = "begun.json"
PREDICTIONS = "predictions.safetensors"
EPOCHS = "epochs.parquet"
PARTITION_FILE = "partition.json"

# Tensors by split and field, see `ftc.callbacks.PredictionRecorder`.
Predictions = dict[str, dict[str, Tensor]]


def by_split(predictions: Predictions, field: str) -> dict[str, Tensor]:
    """One field of the predictions of every split."""
    return {split: fields[field] for split, fields in predictions.items()}


def do_once(config: JobConfig, work: Callable[[], RunRecord], out: Console) -> dict[str, Any]:
    """Do a job unless its folder holds its results already, and print them.

    Args:
        config: the job's configuration; ``overwrite`` does a finished job again.
        work: does the job.
        out: console for the tables.

    Returns:
        The main scalars, for a sweep's table.
    """
    results = config.folder / FILE_NAME
    finished = results.is_file() and not config.overwrite
    if not finished:
        try:
            record = work()
        except FinishedMeanwhileError:
            finished = True
    if finished:
        RunFolder(config.folder).clean()
        record = RunRecord.read(config.folder)
    print_record(
        out,
        record,
        config.folder,
        finished,
        per_class=config.calibration.per_class,
        probabilities=config.calibration.probabilities,
    )
    return record.scalars()


class FinishedMeanwhileError(InputError):
    """Another run finished in the folder before this one had locked it."""


class RunFolder:
    """The folder that a run writes to.

    An unfinished or overwritten run is removed when a new one starts; nothing else is ever removed.

    Args:
        path: the folder, which `start` creates.

    Raises:
        InputError: the path exists and is no run folder.
    """

    def __init__(self, path: Path) -> None:
        if path.resolve() in (Path.cwd(), *Path.cwd().parents):
            raise InputError(f"run_dir={path}: is the folder that the command runs in; name one inside it")
        foreign = path.is_dir() and any(path.iterdir()) and not (path / CONFIG_FILE).is_file()
        if foreign or (path.exists() and not path.is_dir()):
            raise InputError(f"run_dir={path}: exists and is no run folder; choose another or remove it")
        self.path = path

    @contextmanager
    def claimed(self, overwrite: bool) -> Iterator[None]:
        """Lock the folder, so that no other run writes to it meanwhile.

        Args:
            overwrite: whether results that are there are to be replaced.

        Raises:
            FinishedMeanwhileError: there are results, and they are not to be replaced.
            InputError: another run has locked it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock_beside(self.path), timeout=0, mode=0o666):
                if (self.path / FILE_NAME).is_file() and not overwrite:
                    raise FinishedMeanwhileError(
                        f"run_dir={self.path}: another run has finished there; the same command shows it"
                    )
                yield
        except Timeout as error:
            raise InputError(
                f"run_dir={self.path}: another run is at work there; wait for it, or choose another folder"
            ) from error

    def start(
        self,
        config: JobConfig,
        identity: Mapping[str, Any] | None = None,
        manifest: PartitionManifest | None = None,
    ) -> None:
        """Begin a new run. The folder appears with all files written here, or not at all.

        Args:
            config: becomes ``config.yaml``.
            identity: see `ftc.runs.parts.identity`; a run that goes on with this one must have the same. None
                for one that is never gone on with.
            manifest: becomes ``partition.json``, which ``partition=file`` reads.
        """
        old, new = (self.path.with_name(f".{self.path.name}-{state}") for state in ("old", "new"))
        for leftover in (old, new):
            shutil.rmtree(leftover, ignore_errors=True)
        (new / _STAGES).mkdir(parents=True)
        if identity is not None:
            (new / _STAGES / _BEGUN).write_text(json.dumps(identity))
        text = yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)
        (new / CONFIG_FILE).write_text(text)
        if manifest is not None:
            manifest.write(new / PARTITION_FILE)
        for written in (*new.rglob("*"), new):
            flush(written)
        if self.path.exists():
            self.path.rename(old)
        new.rename(self.path)
        flush(self.path.parent)
        shutil.rmtree(old, ignore_errors=True)

    @property
    def checkpoint(self) -> Path:
        """Path of ``checkpoints/last.ckpt``, from which an interrupted fine-tuning goes on."""
        return self.path / "checkpoints" / "last.ckpt"

    def begun(self) -> dict[str, Any] | None:
        """The identity of an unfinished run in the folder, see `start`; None where there is none.

        Raises:
            DamagedError: there is one, and it cannot be read.
        """
        path = self.path / _STAGES / _BEGUN
        if (self.path / FILE_NAME).is_file() or not path.is_file():
            return None
        with damage(path):
            found = json.loads(path.read_text())
            return {key: found[key] for key in ("content", "versions", "samples")}

    def go_on(self) -> None:
        """Remove files that an interrupted run left half-written."""
        remove_parts(self.path)

    def finished_stages(self) -> set[str]:
        """Names of the stages whose results are kept."""
        return {path.stem for path in (self.path / _STAGES).glob("*.pt")}

    def stage_result(self, name: str) -> dict[str, Any]:
        """The result that `keep_stage` kept: ``result`` and ``seconds``.

        Raises:
            DamagedError: the file cannot be read.
        """
        path = self.path / _STAGES / f"{name}.pt"
        with damage(path):
            kept = torch.load(path, weights_only=True)
            return {"result": dict(kept["result"]), "seconds": float(kept["seconds"])}

    def keep_stage(self, name: str, result: Mapping[str, Any]) -> None:
        """Keep the result of a finished stage, of tensors and plain types, until the run is finished."""
        with written_whole(self.path / _STAGES / f"{name}.pt") as temporary:
            torch.save(dict(result), temporary)

    def finish(self, record: RunRecord) -> None:
        """Write ``results.json``, which marks the run as finished, and remove the results of its stages."""
        record.write(self.path)
        self.clean()

    def clean(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self.path / _STAGES, ignore_errors=True)

    def keep_source(self, weights: Path) -> None:
        """Copy the file of the source model's weights to ``source.safetensors``."""
        with written_whole(self.path / SOURCE_WEIGHTS) as temporary:
            shutil.copyfile(weights, temporary)

    def keep_fine_tuned(
        self, weights: Mapping[str, Tensor], classifier: Classifier, class_names: Sequence[str]
    ) -> None:
        """Write ``fine_tuned.safetensors``; its metadata describe the classifier and name its columns."""
        metadata = {**description(classifier), "class_names": class_names}
        save_weights(self.path / FINE_TUNED_WEIGHTS, weights, metadata)

    def keep_heads(self, heads: Mapping[str, Tensor]) -> None:
        """Write ``heads.safetensors``, the tensors of the heads that calibrators moved, if any did."""
        if heads:
            save_weights(self.path / HEADS, heads)

    def keep_predictions(self, stages: Mapping[str, Predictions], record: RunRecord) -> None:
        """Write ``predictions.safetensors``, with tensors named ``stage/split/field``."""
        flat = {
            f"{stage}/{split}/{field}": value
            for stage, splits in stages.items()
            for split, fields in splits.items()
            for field, value in fields.items()
        }
        metadata = {"partition": record.partition.model_dump(mode="json")}
        save_weights(self.path / PREDICTIONS, flat, metadata)

    def keep_figures(
        self, record: RunRecord, formats: Sequence[Format], history: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Write ``figures/`` in these formats, with those over epochs where there is a history of them."""
        if formats:
            write_figures(self.path / "figures", record, _scalars(history), formats)

    def keep_drawn(self, figures: Mapping[str, Figure], formats: Sequence[Format]) -> None:
        """Write figures that are drawn already to ``figures/``, by name."""
        write_drawn(self.path / "figures", figures, formats)

    def keep_per_class(self, record: RunRecord) -> None:
        """Write ``per_class.csv``: one row a class, with its accuracies in fractions."""
        found = record.per_class
        if found is None:
            return
        groups = record.partition.partition().groups()
        numbers = {"fine_tuned": found.fine_tuned, **found.calibrated}
        head = ["column", "class", "group", "num_samples", *numbers]
        path = self.path / "per_class.csv"
        with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(head)
            for row, column in enumerate(found.columns):
                first = (column, found.names[row], groups[column], found.num_samples[row])
                writer.writerow([*first, *(values[row] for values in numbers.values())])

    def keep_epochs(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write ``epochs.parquet``, with scalars and curve of every epoch."""
        rows = _scalars(history)
        names = dict.fromkeys(name for row in rows for name in row)
        columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
        for field in CURVE_FIELDS:
            columns[f"curve_{field}"] = [getattr(row["curve"], field).tolist() for row in history]
        with written_whole(self.path / EPOCHS) as temporary:
            pq.write_table(pa.table(columns), temporary)


def _scalars(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "curve"} for row in history]
