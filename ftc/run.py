"""A run, stage by stage: source → epoch −1 → fine-tune → test → report.

Every stage is seeded on its own, so that a source model from the cache changes nothing after it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from torch import Tensor

from ftc.assembly import (
    build_datamodule,
    build_module,
    build_source_datamodule,
    build_trainer,
    logger_factories,
    make,
    versions,
)
from ftc.calibration import CalibrationCallback, Evaluation, PredictionRecorder
from ftc.config import TrainConfig
from ftc.data import PartitionedDataModule
from ftc.errors import InputError
from ftc.files import written_whole
from ftc.finetune import prepare_source
from ftc.functional import SeenAbsentCurve
from ftc.models import Classifier, create_classifier, fold_gamma, save_weights
from ftc.reporting.figures import write_figures
from ftc.reporting.tables import console, results_table
from ftc.results import FILE_NAME, RunRecord, StageRecord, none_if_nan, nullable

CONFIG_FILE = "config.yaml"
_CURVE = ("gamma", "acc_seen", "acc_absent", "acc_all")

Predictions = dict[str, dict[str, Tensor]]


def run_experiment(config: TrainConfig) -> dict[str, Any]:
    """Do the whole run and print its table; a finished run of the same name is only printed again.

    Args:
        config: with ``run_dir`` filled in.

    Returns:
        The main scalars of every stage, for a sweep's table.

    Raises:
        InputError: something in the configuration that only building it can tell.
    """
    assert config.run_dir is not None
    # Under DDP every process runs this; the others compute along, say nothing and write nothing.
    leads = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    folder, out = Path(config.run_dir), console(quiet=not leads)
    if (folder / FILE_NAME).is_file() and not config.overwrite:
        record = RunRecord.read(folder)
        _print(out, record, folder)
        out.print("Finished before; nothing was trained. overwrite=true trains again.", style="yellow")
    else:
        record = _Run(config, folder, out, leads).execute()
        _print(out, record, folder)
    return _scalars(record)


class _Run:
    """The state that the stages of one run share."""

    def __init__(self, config: TrainConfig, folder: Path, out: Console, leads: bool) -> None:
        self.config = config
        self.folder = folder
        self.out = out
        self.leads = leads
        self.partition = config.class_partition()
        self.timing: dict[str, float] = {}
        # Everything that can refuse its configuration is built before the folder is made.
        _refuse_foreign(folder)
        self.classifier = _classifier(config)
        self.module = build_module(self.classifier, config.optimizer, config.scheduler)
        self.data = build_datamodule(config.data, self.classifier, self.partition, config.seed)
        methods = config.calibration.methods
        self.calibration = CalibrationCallback(
            self.partition,
            {name: make(f"calibration.methods.{name}", methods[name]) for name in config.calibration.use},
            loaders=self.data.validation_roles,
            head="classifier.head",
            top_k=config.calibration.top_k,
            average=config.calibration.average,
        )
        self.recorder = PredictionRecorder(self.data.validation_roles)
        self.logger_factories = logger_factories(config)
        # Also built without loggers and folder first: the trainer checks devices and its own arguments.
        build_trainer(config.trainer, [], logger=False, enable_checkpointing=False)

    def execute(self) -> RunRecord:
        with self._stage("source"):
            source_file, trained = self._source()
        verb = "trained in" if trained else "cached, loaded in"
        self.out.print(f"Source model {verb} {self.timing['source']:.1f} s: {source_file}")
        if self.leads:
            self._start_folder()
        loggers = [make_logger() for make_logger in self.logger_factories] if self.leads else []
        try:
            trainer = build_trainer(
                self.config.trainer,
                [self._progress(), self.calibration, self.recorder, self._checkpointing()],
                logger=loggers or False,
                default_root_dir=self.folder,
                log_every_n_steps=10,
            )
            source, source_predictions = self._source_evaluation(trainer)
            fine_tuned, predictions = self._fine_tuning(trainer)
        finally:
            _finish(loggers)
        with self._stage("report"):
            record = self._record(source, fine_tuned)
            if self.leads:
                self._write(record, source_file, {"source": source_predictions, "fine_tuned": predictions})
        if self.leads:
            # Last, because a folder with results is a finished run.
            record.write(self.folder)
        return record

    def _start_folder(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        with written_whole(self.folder / CONFIG_FILE) as temporary:
            temporary.write_text(
                yaml.safe_dump(self.config.model_dump(), sort_keys=False, allow_unicode=True)
            )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timing[name] = time.perf_counter() - start

    def _source(self) -> tuple[Path, bool]:
        config = self.config
        identity = {
            "model": config.model.model_dump(),
            "data": config.data.model_dump(
                include={"num_classes", "source", "source_augmentation", "batch_size"},
            ),
            "source": config.source.model_dump(exclude={"cache_dir"}),
            "precision": config.trainer.precision,
            "versions": versions(),
        }

        def train(classifier: Classifier) -> None:
            if config.data.source is None:
                return
            seed_everything(config.source.seed, workers=True, verbose=False)
            module = build_module(classifier, config.source.optimizer, config.source.scheduler)
            data = build_source_datamodule(config.data, classifier, config.source.seed)
            trainer = build_trainer(
                config.trainer,
                [self._progress()],
                # One process: the others take the weights from the cache.
                devices=1,
                strategy="auto",
                max_epochs=config.source.max_epochs,
                logger=False,
                enable_checkpointing=False,
            )
            trainer.fit(module, train_dataloaders=data.train_dataloader())

        return prepare_source(self.classifier, identity, Path(config.source.cache_dir), train)

    def _source_evaluation(self, trainer: Trainer) -> tuple[Evaluation, Predictions]:
        with self._stage("source_evaluation"):
            seed_everything(self.config.seed, workers=True, verbose=False)
            trainer.validate(self.module, self.data, verbose=False)
            return self._test(trainer)

    def _fine_tuning(self, trainer: Trainer) -> tuple[Evaluation, Predictions]:
        with self._stage("fine_tune"):
            seed_everything(self.config.seed, workers=True, verbose=False)
            trainer.fit(self.module, self.data)
        with self._stage("test"):
            return self._test(trainer)

    def _test(self, trainer: Trainer) -> tuple[Evaluation, Predictions]:
        trainer.test(self.module, self.data, verbose=False)
        assert self.calibration.evaluation is not None
        return self.calibration.evaluation, dict(self.recorder.latest)

    def _progress(self) -> RichProgressBar:
        return RichProgressBar(leave=False)

    def _checkpointing(self) -> ModelCheckpoint:
        # The last epoch, no model selection: the published protocol.
        return ModelCheckpoint(
            dirpath=self.folder / "checkpoints",
            filename="last",
            save_weights_only=False,
            enable_version_counter=False,
        )

    def _record(self, source: Evaluation, fine_tuned: Evaluation) -> RunRecord:
        calibrated = {
            name: StageRecord(result.calibration.gamma, result.calibration.uses, nullable(result.metrics))
            for name, result in fine_tuned.calibrated.items()
        }
        origin = ("source domain",) if self.config.data.source else ("pre-training",)
        return RunRecord(
            experiment=self.config.name,
            seed=self.config.seed,
            partition=self.partition.to_dict(),
            versions=versions(),
            timing=self.timing,
            source=StageRecord(0.0, origin, nullable(source.metrics), _curve_lists(source.curve)),
            fine_tuned=StageRecord(
                0.0, ("seen train",), nullable(fine_tuned.metrics), _curve_lists(fine_tuned.curve)
            ),
            calibrated=calibrated,
            deployed=self.config.calibration.default,
            num_samples=fine_tuned.num_samples,
        )

    def _write(self, record: RunRecord, source_file: Path, predictions: dict[str, Predictions]) -> None:
        with written_whole(self.folder / "source.safetensors") as temporary:
            shutil.copyfile(source_file, temporary)
        gamma = record.calibrated[record.deployed].gamma
        metadata = {
            "model": json.dumps(self.config.model.model_dump()),
            "class_names": json.dumps(_class_names(self.data)),
            "partition": json.dumps(record.partition),
            "calibrator": record.deployed,
            "gamma": repr(gamma),
        }
        deployed = fold_gamma(self.classifier, self.partition, gamma)
        save_weights(self.folder / "checkpoints" / "calibrated.safetensors", deployed, metadata)
        flat = {
            f"{stage}/{split}/{field}": value
            for stage, splits in predictions.items()
            for split, fields in splits.items()
            for field, value in fields.items()
        }
        save_weights(
            self.folder / "predictions.safetensors", flat, {"partition": json.dumps(record.partition)}
        )
        rows = [{k: v for k, v in row.items() if k != "curve"} for row in self.calibration.history]
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
        for name in _CURVE:
            curves = [getattr(row["curve"], name) for row in self.calibration.history]
            columns[f"curve_{name}"] = [curve.tolist() for curve in curves]
        with written_whole(self.folder / "epochs.parquet") as temporary:
            pq.write_table(pa.table(columns), temporary)
        write_figures(self.folder / "figures", record, rows)


def _classifier(config: TrainConfig) -> Classifier:
    # Seeded by the source: its initial weights are part of what the cache stands for.
    seed_everything(config.source.seed, workers=True, verbose=False)
    return create_classifier(
        config.model.name, config.data.num_classes, config.model.pretrained, config.model.kwargs
    )


def _refuse_foreign(folder: Path) -> None:
    """An unfinished or overwritten run is removed before the new one starts; nothing else ever is."""
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG_FILE).is_file()
    ):
        raise InputError(f"run_dir={folder}: exists and is no run folder; choose another or remove it")


def _finish(loggers: list[Any]) -> None:
    """Close every W&B run, so that the next job of a sweep gets its own."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def _class_names(data: PartitionedDataModule) -> tuple[str, ...]:
    reader = data.readers["train"]
    assert reader is not None
    return reader.class_names


def _curve_lists(curve: SeenAbsentCurve) -> dict[str, list[float | None]]:
    return {name: [none_if_nan(value) for value in getattr(curve, name).tolist()] for name in _CURVE}


def _scalars(record: RunRecord) -> dict[str, Any]:
    names = ("acc_all", "acc_seen", "acc_absent", "harmonic", "ausuc", "ncm_acc_all", "ncm_acc_absent")
    result: dict[str, Any] = {}
    for stage, values in record.rows():
        kept = names if stage in ("source", "fine_tuned") else names[:4]
        result |= {f"{stage}/{name}": values.metrics.get(name) for name in kept}
        if stage in record.calibrated:
            result[f"{stage}/gamma"] = values.gamma
    return result


def _print(out: Console, record: RunRecord, folder: Path) -> None:
    out.print(results_table(record))
    stages = ", ".join(f"{name.replace('_', ' ')} {seconds:.1f} s" for name, seconds in record.timing.items())
    out.print(f"Time: {stages}")
    out.print("* this γ is folded into checkpoints/calibrated.safetensors, which any timm user can load")
    out.print(f"Run folder: {folder}", soft_wrap=True)
