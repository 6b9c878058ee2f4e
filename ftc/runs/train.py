"""A run, stage by stage: source → folds → epoch −1 → fine-tune → test → interpolations → report.

Every stage is seeded on its own, so that a source model from the cache changes nothing after it. What a stage
results in is kept, and training keeps checkpoints, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from attrs import asdict
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from torch import Tensor

from ftc.assembly.components import build_trainer, logger_factories
from ftc.calibrators import FoldEvidence, Interpolated, PseudoCrossValidation
from ftc.callbacks import PredictionRecorder, fit
from ftc.config.commands import TrainConfig
from ftc.errors import InputError
from ftc.evaluation.objectives import oracle_scores, seen_only_scores
from ftc.evaluation.summary import calibrated_record, fine_tuned_record
from ftc.functional import SeenStatistics, seen_statistics
from ftc.metrics import FeatureDrift
from ftc.models import (
    fold_gamma,
    interpolate_weights,
    load_tensors,
)
from ftc.partition import ClassPartition
from ftc.reporting.tables import console, results_tables
from ftc.results import FILE_NAME, RunRecord, StageRecord, nullable
from ftc.runs.failures import explained
from ftc.runs.folder import Predictions
from ftc.runs.folds import fold_evidence, train_or_find_fold
from ftc.runs.parts import Job, build_calibrators
from ftc.runs.processes import all_or_none
from ftc.versions import versions


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
        with explained(config):
            return _Run(config, folder, out, leads).train_fold(config.fold)
    if (folder / FILE_NAME).is_file() and not config.overwrite:
        record = RunRecord.read(folder)
        _print(out, record, folder)
        out.print("Finished before; nothing was trained. overwrite=true trains again.", style="yellow")
    else:
        with explained(config), ExitStack() as held:
            with all_or_none():
                run = _Run(config, folder, out, leads)
                if leads:
                    held.enter_context(run.folder.claimed())
            record = run.execute()
        _print(out, record, folder)
    return record.scalars()


class _Run(Job[TrainConfig]):
    """The state that the stages of one run share."""

    def __init__(self, config: TrainConfig, folder: Path, out: Console, leads: bool) -> None:
        self.logger_factories = logger_factories(config)
        super().__init__(config, folder, out, leads, build_calibrators(config))
        self.plans = {c.plan for c in self.calibrators.values() if isinstance(c, PseudoCrossValidation)}
        for plan in self.plans:
            plan.draw(self.partition)
        self.interpolations = {n: c for n, c in self.calibrators.items() if isinstance(c, Interpolated)}
        plain = {n: c for n, c in self.calibrators.items() if n not in self.interpolations}
        self.calibration = self.callback(plain)
        self.recorder = PredictionRecorder(self.data.validation_roles)
        self._finished: set[str] = set()

    def execute(self) -> RunRecord:
        with all_or_none():
            resumed = self._resumes()
        source_file = self.source_stage()
        if self.plans:
            with self.stage("folds"), all_or_none():
                self.calibration.folds = {plan: fold_evidence(self, plan, source_file) for plan in self.plans}
        if resumed:
            self._finished = self.folder.finished_stages()
            if self.leads:
                self.folder.go_on()
        else:
            self.start_folder()
        self.check_shared()
        loggers = [make_logger() for make_logger in self.logger_factories] if self.leads else []
        try:
            trainer = build_trainer(
                self.config.trainer,
                # Averaging comes last: it takes the averaged weights away when an evaluation ends.
                [
                    self.progress(),
                    *self.training(self.config.seed, self.folder.checkpoint),
                    self.calibration,
                    self.recorder,
                    *self.averaging(),
                ],
                logger=loggers or False,
                default_root_dir=self.folder.path,
                log_every_n_steps=10,
            )
            source = self._once("source_evaluation", partial(self._source_evaluation, trainer))
            self.calibration.load_state_dict(source["calibration"])
            self._fine_tuning(trainer)
            fine_tuned = self._once("test", partial(self._test, trainer))
        finally:
            _finish(loggers)
        interpolated = {
            name: self._once(name, partial(self._interpolation, name, source_file))
            for name in self.interpolations
        }
        with self.stage("report"):
            record = self._record(source, fine_tuned, interpolated)
            stages = {"source": source["predictions"], "fine_tuned": fine_tuned["predictions"]}
            record = replace(
                record,
                feature_drift=_feature_drift(stages, self.partition),
                selection=self._selection(record, fine_tuned["predictions"], interpolated),
            )
            # Sharded weights are gathered, which all processes take part in.
            deployed = self._deployed(record, source_file)
            if self.leads:
                self.folder.keep_source(source_file)
                self.folder.keep_deployed(*deployed)
                self.folder.keep_predictions(stages, record.partition)
                self.folder.keep_epochs(self.calibration.history, record)
        if self.leads:
            self.folder.finish(record)
        return record

    def _resumes(self) -> bool:
        """Whether to go on with an unfinished run in the folder.

        Raises:
            InputError: it is of another configuration.
        """
        begun, identity = self.folder.begun(), self.identity
        if begun is None or self.config.overwrite or self.config.resume == "never":
            return False
        if begun["content"] != identity["content"]:
            raise InputError(
                f"run_dir={self.folder.path}: holds an unfinished run of another configuration; choose "
                "another folder, or set overwrite=true"
            )
        if begun != identity:
            what = "versions of libraries" if begun["samples"] == identity["samples"] else "images"
            self.out.print(f"The unfinished run there had other {what}; it is begun anew.", style="yellow")
            return False
        self.out.print("Going on with the unfinished run.")
        return True

    def _once(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A stage's result, of tensors and plain types.

        Kept by the run that this one goes on with, or computed now and kept for one to come.
        """
        if name in self._finished:
            kept = self.folder.stage_result(name)
            self.timing[name] = kept["seconds"]
            return kept["result"]
        with self.stage(name):
            result = compute()
        if self.leads:
            self.folder.keep_stage(name, {"result": result, "seconds": self.timing[name]})
        return result

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
        source_file = self.source_stage()
        result = {}
        for name, plan in plans.items():
            if fold < plan.folds:
                trained = train_or_find_fold(self, plan, fold, source_file)
                evidence = FoldEvidence("one fold", (trained,))
                gamma = self.calibrators[name].estimate(evidence).gamma
                seen = " ".join(map(str, trained.partition.seen))
                self.out.print(f"Fold {fold} of {name}: pseudo-seen classes {seen}, γ {gamma:.2f}")
                result[f"{name}/gamma_fold_{fold}"] = gamma
        return result

    def _interpolation(self, name: str, source_file: Path) -> dict[str, Any]:
        """Evaluate the interpolated weights as a model of their own, and bring the fine-tuned ones back."""
        calibrator = self.interpolations[name]
        ends = load_tensors(source_file), _copy(self.classifier.timm_state_dict())
        if calibrator.alpha is None:
            calibrator.alpha = calibrator.choose(self._held_out_hits(ends, calibrator.alphas))
        self.classifier.load_timm_state_dict(interpolate_weights(*ends, calibrator.alpha))
        callback = self.callback(
            {name: calibrator}, source=self.calibration.source, source_pool=self.calibration.source_pool
        )
        trainer = self.quiet_trainer(callback)
        trainer.validate(self.module, self.data, verbose=False)
        trainer.test(self.module, self.data, verbose=False)
        self.classifier.load_timm_state_dict(ends[1])
        assert callback.evaluation is not None
        held_out = callback.available.seen.get("held_out")
        return {
            "record": calibrated_record(callback.evaluation.calibrated[name]).to_dict(),
            "held_out": None if held_out is None else asdict(held_out.fine_tuned),
        }

    def _held_out_hits(
        self, ends: tuple[Mapping[str, Tensor], Mapping[str, Tensor]], alphas: Sequence[float]
    ) -> dict[float, Tensor]:
        """By α: which held-out seen samples are right inside their group; none where logits overflow."""
        recorder = PredictionRecorder(("val",))
        trainer = self.quiet_trainer(recorder)
        held_out = self.calibration.available.seen.get("held_out")
        if held_out is None or held_out.source is None:
            raise InputError(
                "interpolated wants labelled seen images held out of fine-tuning; "
                "data.readers.val has none of seen classes"
            )
        hits = {0.0: held_out.source.hit, 1.0: held_out.fine_tuned.hit}
        for alpha in alphas:
            self.classifier.load_timm_state_dict(interpolate_weights(*ends, alpha))
            trainer.validate(self.module, self.data.held_out_dataloader(), verbose=False)
            logits, target = (recorder.latest["val"][field] for field in ("logits", "target"))
            finite = bool(logits.isfinite().all())
            hits[alpha] = seen_statistics(logits, target, self.partition).hit if finite else target[:0]
        return hits

    def _source_evaluation(self, trainer: Trainer) -> dict[str, Any]:
        seed_everything(self.config.seed, workers=True, verbose=False)
        trainer.validate(self.module, self.data, verbose=False)
        origin = ("source domain",) if self.config.trains_source else ("pre-training",)
        tested = self._tested(trainer, origin)
        return {**tested, "calibration": self.calibration.state_dict()}

    def _fine_tuning(self, trainer: Trainer) -> None:
        with self.stage("fine_tune"):
            seed_everything(self.config.seed, workers=True, verbose=False)
            checkpointing = fit(trainer, self.module, self.data)
        self.timing["fine_tune"] = checkpointing.seconds

    def _test(self, trainer: Trainer) -> dict[str, Any]:
        if not self.recorder.latest:
            # The run was interrupted between its last validation and here.
            self.quiet_trainer(self.recorder).validate(self.module, self.data, verbose=False)
        return self._tested(trainer, ("seen train",))

    def _tested(self, trainer: Trainer, uses: tuple[str, ...]) -> dict[str, Any]:
        evaluation, predictions = self.test(trainer, self.calibration, self.recorder)
        return {
            "model": fine_tuned_record(evaluation, uses).to_dict(),
            "calibrated": {n: calibrated_record(r).to_dict() for n, r in evaluation.calibrated.items()},
            "num_samples": evaluation.num_samples,
            "predictions": predictions,
        }

    def _record(
        self,
        source: Mapping[str, Any],
        fine_tuned: Mapping[str, Any],
        interpolated: Mapping[str, Mapping[str, Any]],
    ) -> RunRecord:
        results = {**fine_tuned["calibrated"], **{name: r["record"] for name, r in interpolated.items()}}
        # In the order of calibration.use, oracles last.
        order = {name: rank for rank, name in enumerate(self.calibrators)}
        names = sorted(results, key=lambda name: order.get(name, len(order)))
        return RunRecord(
            experiment=self.config.name,
            seed=self.config.seed,
            partition=self.partition.to_dict(),
            versions=versions(),
            timing=self.timing,
            source=StageRecord.from_dict(source["model"]),
            fine_tuned=StageRecord.from_dict(fine_tuned["model"]),
            calibrated={name: StageRecord.from_dict(results[name]) for name in names},
            deployed=self.config.calibration.deployed,
            num_samples=fine_tuned["num_samples"],
        )

    def _selection(
        self, record: RunRecord, predictions: Predictions, interpolated: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, float | None]:
        """What hyper-parameters may be chosen by."""
        name = self.config.calibration.deployed
        if name in interpolated:
            kept = interpolated[name]["held_out"]
            seen = None if kept is None else SeenStatistics(**kept)
        else:
            evidence = self.calibration.available.seen.get("held_out")
            seen = None if evidence is None else evidence.fine_tuned
        stage = record.calibrated.get(name)
        val = predictions.get("val") if self.config.data.held_out else None
        scores = seen_only_scores(
            self.partition,
            None if val is None else (val["logits"], val["target"]),
            (seen, stage.gamma) if seen and stage and stage.lane == "seen_only" else None,
            self.calibration.folds.values(),
        )
        return {**nullable(scores), **oracle_scores(record.fine_tuned, record.calibrated)}

    def _deployed(self, record: RunRecord, source_file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights to deploy, γ folded in, and what they are."""
        name = self.config.calibration.deployed
        stage = record.calibrated[name]
        metadata = {
            "model": self.config.model.model_dump(),
            "class_names": self.images.class_names,
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


def _finish(loggers: list[Any]) -> None:
    """Close every W&B run, so that the next job of a sweep gets its own."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}


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
