"""A run, stage by stage: source → folds → epoch −1 → fine-tune → test → interpolations → report.

Every stage is seeded on its own, so that a source model from the cache changes nothing after it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer, seed_everything
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
)
from ftc.calibration import CalibrationCallback, PredictionRecorder
from ftc.calibrators import Calibrator, Fold, FoldEvidence, FoldPlan, Interpolated, PseudoCrossValidation
from ftc.config import TrainConfig
from ftc.errors import InputError
from ftc.evaluation import (
    Bootstrap,
    CalibratedAccuracies,
    Evaluation,
    calibrated_record,
    fine_tuned_record,
)
from ftc.finetune import prepare_source
from ftc.functional import seen_statistics
from ftc.instantiate import make
from ftc.metrics import FeatureDrift
from ftc.models import (
    Classifier,
    cached_tensors,
    create_classifier,
    fold_gamma,
    interpolate_weights,
    load_tensors,
    load_weights,
)
from ftc.partition import ClassPartition
from ftc.reporting.tables import console, results_tables
from ftc.results import FILE_NAME, RunRecord, nullable
from ftc.run_folder import Predictions, RunFolder
from ftc.versions import versions

# Where training happens: what is cached does not depend on it.
_PLACE = {"accelerator", "devices", "strategy"}


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
    if config.fold is not None:
        return _Run(config, folder, out, leads).train_fold(config.fold)
    if (folder / FILE_NAME).is_file() and not config.overwrite:
        record = RunRecord.read(folder)
        _print(out, record, folder)
        out.print("Finished before; nothing was trained. overwrite=true trains again.", style="yellow")
    else:
        record = _Run(config, folder, out, leads).execute()
        _print(out, record, folder)
    return record.scalars()


class _Run:
    """The state that the stages of one run share."""

    def __init__(self, config: TrainConfig, folder: Path, out: Console, leads: bool) -> None:
        self.config = config
        self.out = out
        self.leads = leads
        self.partition = config.class_partition()
        self.timing: dict[str, float] = {}
        # Everything that can refuse its configuration is built before the folder is made.
        self.folder = RunFolder(folder)
        self.classifier = _classifier(config)
        self.module = build_module(self.classifier, config.optimizer, config.scheduler)
        self.data = build_datamodule(config.data, self.classifier, self.partition, config.seed)
        self.calibrators = _calibrators(config)
        self.plans = {c.plan for c in self.calibrators.values() if isinstance(c, PseudoCrossValidation)}
        for plan in self.plans:
            plan.draw(self.partition)
        self.interpolations = {n: c for n, c in self.calibrators.items() if isinstance(c, Interpolated)}
        plain = {n: c for n, c in self.calibrators.items() if n not in self.interpolations}
        self.calibration = self._callback(plain)
        self.recorder = PredictionRecorder(self.data.validation_roles)
        self.logger_factories = logger_factories(config)
        # Also built without loggers and folder first: the trainer checks devices and its own arguments.
        trainer = build_trainer(config.trainer, [], logger=False, enable_checkpointing=False)
        self.world_size = trainer.world_size

    def execute(self) -> RunRecord:
        source_file = self._source_stage()
        if self.plans:
            with self._stage("folds"):
                self.calibration.folds = {plan: self._folds(plan, source_file) for plan in self.plans}
        if self.leads:
            self.folder.start(self.config)
        loggers = [make_logger() for make_logger in self.logger_factories] if self.leads else []
        try:
            trainer = build_trainer(
                self.config.trainer,
                [self._progress(), self.calibration, self.recorder, self._checkpointing()],
                logger=loggers or False,
                default_root_dir=self.folder.path,
                log_every_n_steps=10,
            )
            source, source_predictions = self._source_evaluation(trainer)
            fine_tuned, predictions = self._fine_tuning(trainer)
        finally:
            _finish(loggers)
        interpolated = {name: self._interpolation(name, source_file) for name in self.interpolations}
        with self._stage("report"):
            record = self._record(source, fine_tuned, interpolated)
            stages = {"source": source_predictions, "fine_tuned": predictions}
            record = replace(record, feature_drift=_feature_drift(stages, self.partition))
            if self.leads:
                self.folder.keep_source(source_file)
                self.folder.keep_deployed(*self._deployed(record, source_file))
                self.folder.keep_predictions(stages, record.partition)
                self.folder.keep_epochs(self.calibration.history, record)
        if self.leads:
            # Last, because a folder with results is a finished run.
            record.write(self.folder.path)
        return record

    def train_fold(self, fold: int) -> dict[str, Any]:
        """Train one fold of every pseudo cross-validation in use, for the run that uses it to find.

        Raises:
            InputError: no pseudo cross-validation in use, or none with so many folds.
        """
        plans = {
            name: calibrator.plan
            for name, calibrator in self.calibrators.items()
            if isinstance(calibrator, PseudoCrossValidation)
        }
        deepest = max((plan.folds for plan in plans.values()), default=0)
        if fold >= deepest:
            raise InputError(
                f"fold={fold}: calibration.use={self.config.calibration.use} has {deepest} folds of pseudo "
                "cross-validation; choose a smaller one, or add pcv"
            )
        source_file = self._source_stage()
        result = {}
        for name, plan in plans.items():
            if fold < plan.folds:
                trained = self._fold(plan, fold, source_file)
                evidence = FoldEvidence("one fold", (trained,))
                gamma = self.calibrators[name].estimate(evidence).gamma
                seen = " ".join(map(str, trained.partition.seen))
                self.out.print(f"Fold {fold} of {name}: pseudo-seen classes {seen}, γ {gamma:.2f}")
                result[f"{name}/gamma_fold_{fold}"] = gamma
        return result

    def _callback(self, calibrators: Mapping[str, Calibrator[Any]], **arguments: Any) -> CalibrationCallback:
        config = self.config.calibration
        bootstrap = config.bootstrap
        return CalibrationCallback(
            self.partition,
            calibrators,
            loaders=self.data.validation_roles,
            head="classifier.head",
            top_k=config.top_k,
            average=config.average,
            # Held-out training images are of seen classes only: no pool.
            pool_from_val=self.config.data.val is not None,
            bootstrap=Bootstrap(**bootstrap.model_dump()) if bootstrap.replicates else None,
            **arguments,
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timing[name] = time.perf_counter() - start

    def _source_stage(self) -> Path:
        with self._stage("source"):
            source_file, trained = self._source()
        verb = "trained in" if trained else "cached, loaded in"
        self.out.print(f"Source model {verb} {self.timing['source']:.1f} s: {source_file}")
        return source_file

    def _source(self) -> tuple[Path, bool]:
        config = self.config
        identity = {
            "model": config.model.model_dump(),
            "data": config.data.model_dump(
                include={"num_classes", "source", "source_augmentation", "batch_size"},
            ),
            "source": config.source.model_dump(exclude={"cache_dir"}),
            "trainer": config.trainer.model_dump(exclude={*_PLACE, "max_epochs"}),
            "versions": versions(),
        }

        def train(classifier: Classifier) -> None:
            if config.data.source is None:
                return
            seed_everything(config.source.seed, workers=True, verbose=False)
            module = build_module(classifier, config.source.optimizer, config.source.scheduler)
            data = build_source_datamodule(config.data, classifier, config.source.seed)
            trainer = self._cached_trainer(max_epochs=config.source.max_epochs)
            trainer.fit(module, train_dataloaders=data.train_dataloader())

        return prepare_source(self.classifier, identity, Path(config.source.cache_dir), train)

    def _cached_trainer(self, *callbacks: Callback, **arguments: Any) -> Trainer:
        """A trainer for what is cached: in one process, the others take the tensors from the cache."""
        return build_trainer(
            self.config.trainer,
            [self._progress(), *callbacks],
            devices=1,
            strategy="auto",
            logger=False,
            enable_checkpointing=False,
            **arguments,
        )

    def _folds(self, plan: FoldPlan, source_file: Path) -> FoldEvidence:
        folds = tuple(self._fold(plan, k, source_file) for k in range(plan.folds))
        return FoldEvidence(f"seen train, seen val, {plan.folds} fine-tunes more", folds)

    def _fold(self, plan: FoldPlan, k: int, source_file: Path) -> Fold:
        """A fold of pseudo cross-validation: from the cache, or fine-tuned as the run itself will be."""
        config = self.config
        pseudo_seen = plan.draw(self.partition)[k]
        seed = plan.seed + k
        identity = {
            "source": source_file.stem,
            "partition": self.partition.to_dict(),
            "pseudo_seen": pseudo_seen,
            "seed": seed,
            "data": config.data.model_dump(
                exclude={"test", "pool", "gallery", "eval_batch_size", "num_workers"}
            ),
            "optimizer": config.optimizer.model_dump(),
            "scheduler": config.scheduler.model_dump(),
            "trainer": config.trainer.model_dump(exclude=_PLACE),
            "world_size": self.world_size,
        }

        def train() -> dict[str, Tensor]:
            pseudo_absent = [c for c in self.partition.seen if c not in pseudo_seen]
            partition = ClassPartition(self.partition.num_classes, pseudo_seen, pseudo_absent)
            # The batch of all processes: the real recipe, in one.
            recipe = config.data.model_copy(update={"batch_size": config.data.batch_size * self.world_size})
            data = build_datamodule(recipe, self.classifier, partition, seed)
            seed_everything(seed, workers=True, verbose=False)
            module = build_module(
                self.classifier, config.optimizer, config.scheduler, without=self.partition.absent
            )
            recorder = PredictionRecorder(("val",))
            trainer = self._cached_trainer(recorder)
            held_out = build_datamodule(
                config.data, self.classifier, self.partition, seed
            ).held_out_dataloader()
            trainer.validate(module, held_out, verbose=False)
            source = recorder.latest["val"]
            trainer.fit(module, train_dataloaders=data.train_dataloader())
            trainer.validate(module, held_out, verbose=False)
            fine_tuned = recorder.latest["val"]
            return {
                "logits": fine_tuned["logits"],
                "source_logits": source["logits"],
                "target": fine_tuned["target"],
            }

        path, trained = cached_tensors(identity, Path(config.calibration.cache_dir), train)
        if trained:
            load_weights(source_file, self.classifier)
        tensors = load_tensors(path)
        try:
            return Fold.from_logits(
                tensors["logits"], tensors["source_logits"], tensors["target"], self.partition, pseudo_seen
            )
        except InputError as error:
            raise InputError(f"fold {k} of pseudo cross-validation: {error}") from error

    def _interpolation(self, name: str, source_file: Path) -> CalibratedAccuracies:
        """Evaluate the interpolated weights as a model of their own, and bring the fine-tuned ones back."""
        calibrator = self.interpolations[name]
        with self._stage(name):
            ends = load_tensors(source_file), _copy(self.classifier.timm_state_dict())
            if calibrator.alpha is None:
                calibrator.alpha = calibrator.choose(self._held_out_hits(ends, calibrator.alphas))
            self.classifier.load_timm_state_dict(interpolate_weights(*ends, calibrator.alpha))
            callback = self._callback(
                {name: calibrator}, source=self.calibration.source, source_pool=self.calibration.source_pool
            )
            trainer = self._quiet_trainer(callback)
            trainer.validate(self.module, self.data, verbose=False)
            trainer.test(self.module, self.data, verbose=False)
            self.classifier.load_timm_state_dict(ends[1])
        assert callback.evaluation is not None
        return callback.evaluation.calibrated[name]

    def _held_out_hits(
        self, ends: tuple[Mapping[str, Tensor], Mapping[str, Tensor]], alphas: Sequence[float]
    ) -> dict[float, Tensor]:
        """By α: which held-out seen samples are right inside their group; none where logits overflow."""
        recorder = PredictionRecorder(("val",))
        trainer = self._quiet_trainer(recorder)
        held_out = self.calibration.available.seen.get("held_out")
        if held_out is None or held_out.source is None:
            raise InputError(
                "interpolated wants labelled seen images held out of fine-tuning; name data.val with seen "
                "classes, or data.holdout"
            )
        hits = {0.0: held_out.source.hit, 1.0: held_out.fine_tuned.hit}
        for alpha in alphas:
            self.classifier.load_timm_state_dict(interpolate_weights(*ends, alpha))
            trainer.validate(self.module, self.data.held_out_dataloader(), verbose=False)
            logits, target = (recorder.latest["val"][field] for field in ("logits", "target"))
            finite = bool(logits.isfinite().all())
            hits[alpha] = seen_statistics(logits, target, self.partition).hit if finite else target[:0]
        return hits

    def _quiet_trainer(self, callback: Callback) -> Trainer:
        return build_trainer(
            self.config.trainer,
            [self._progress(), callback],
            logger=False,
            enable_checkpointing=False,
        )

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
            dirpath=self.folder.path / "checkpoints",
            filename="last",
            save_weights_only=False,
            enable_version_counter=False,
        )

    def _record(
        self, source: Evaluation, fine_tuned: Evaluation, interpolated: Mapping[str, CalibratedAccuracies]
    ) -> RunRecord:
        results = {**fine_tuned.calibrated, **interpolated}
        # In the order of calibration.use, oracles last.
        order = {name: rank for rank, name in enumerate(self.calibrators)}
        names = sorted(results, key=lambda name: order.get(name, len(order)))
        origin = ("source domain",) if self.config.data.source else ("pre-training",)
        return RunRecord(
            experiment=self.config.name,
            seed=self.config.seed,
            partition=self.partition.to_dict(),
            versions=versions(),
            timing=self.timing,
            source=fine_tuned_record(source, origin),
            fine_tuned=fine_tuned_record(fine_tuned, ("seen train",)),
            calibrated={name: calibrated_record(results[name]) for name in names},
            deployed=self.config.calibration.deployed,
            num_samples=fine_tuned.num_samples,
        )

    def _deployed(self, record: RunRecord, source_file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights to deploy, γ folded in, and what they are."""
        name = self.config.calibration.deployed
        stage = record.calibrated[name]
        reader = self.data.readers["train"]
        assert reader is not None
        metadata = {
            "model": self.config.model.model_dump(),
            "class_names": reader.class_names,
            "partition": record.partition,
            "calibrator": name,
            "gamma": stage.gamma,
        }
        weights = _copy(self.classifier.timm_state_dict())
        if name in self.interpolations:
            metadata["alpha"] = alpha = stage.details["alpha"]
            weights = interpolate_weights(load_tensors(source_file), weights, alpha)
        bias = f"{self.classifier.head_name}.bias"
        return fold_gamma(weights, bias, self.partition, stage.gamma), metadata


def _classifier(config: TrainConfig) -> Classifier:
    # Seeded by the source: its initial weights are part of what the cache stands for.
    seed_everything(config.source.seed, workers=True, verbose=False)
    return create_classifier(
        config.model.name, config.data.num_classes, config.model.pretrained, config.model.kwargs
    )


def _finish(loggers: list[Any]) -> None:
    """Close every W&B run, so that the next job of a sweep gets its own."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def _calibrators(config: TrainConfig) -> dict[str, Calibrator[Any]]:
    """Those of ``calibration.use``, as far as they fit the data and each other."""
    methods = config.calibration.methods
    built = {name: make(f"calibration.methods.{name}", methods[name]) for name in config.calibration.use}
    for name, calibrator in built.items():
        if calibrator.lane == "unlabelled" and config.data.val is None and config.data.pool is None:
            raise InputError(
                f"calibration.use={config.calibration.use}: {name} wants unlabelled target images of all "
                "classes; name data.pool or data.val, or leave it out"
            )
    if built[config.calibration.deployed].lane == "oracle":
        raise InputError(
            f"calibration.default={config.calibration.deployed}: looks at evaluated labels, so it is no "
            "method to deploy; choose another"
        )
    return built


def _feature_drift(stages: Mapping[str, Predictions], partition: ClassPartition) -> dict[str, float | None]:
    drift = FeatureDrift(partition)
    source, fine_tuned = stages["source"]["test"], stages["fine_tuned"]["test"]
    drift.update(fine_tuned["features"], source["features"], fine_tuned["target"])
    return nullable(drift.compute())


def _print(out: Console, record: RunRecord, folder: Path) -> None:
    for table in results_tables(record):
        out.print(table)
    stages = ", ".join(f"{name.replace('_', ' ')} {seconds:.1f} s" for name, seconds in record.timing.items())
    out.print(f"Time: {stages}")
    out.print("* folded into checkpoints/calibrated.safetensors, which any timm user can load")
    out.print(f"Run folder: {folder}", soft_wrap=True)
