"""Epoch −1 of any checkpoint: the table of a run, no training."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from lightning.pytorch.utilities import rank_zero_only

from ftc.calibrators import Calibrator, Interpolated, PseudoCrossValidation
from ftc.callbacks import CalibrationCallback, PredictionRecorder
from ftc.config.commands import EvaluateConfig, file_digest
from ftc.config.partition import SemanticSplit
from ftc.evaluation.summary import Evaluation, calibrated_record, fine_tuned_record
from ftc.reporting.tables import console, results_tables
from ftc.results import FILE_NAME, RunRecord
from ftc.runs.failures import explained
from ftc.runs.folder import Predictions
from ftc.runs.parts import Job, build_calibrators
from ftc.runs.processes import all_or_none
from ftc.versions import versions


def evaluate_checkpoint(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate, print the table, write the folder; a finished one is only printed again.

    Args:
        config: with ``run_dir`` filled in.

    Returns:
        The main scalars, for a sweep's table.

    Raises:
        InputError: something in the configuration that only building it can tell, or no such checkpoint.
    """
    assert config.run_dir is not None
    leads = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    folder, out = Path(config.run_dir), console(quiet=not leads)
    finished = (folder / FILE_NAME).is_file() and not config.overwrite
    if finished:
        record = RunRecord.read(folder)
    else:
        methods, left_out = _without_training(build_calibrators(config), config.source.checkpoint is not None)
        for name, reason in left_out.items():
            out.print(f"{name} is left out: {reason}")
        # The checkpoint is loaded over the model's own weights, which only a source model may be made of.
        by_source = isinstance(config.partition, SemanticSplit)
        with explained(config), ExitStack() as held:
            with all_or_none():
                evaluation = _Evaluation(config, folder, out, leads, methods, pretrained=by_source)
                if leads:
                    held.enter_context(evaluation.folder.claimed())
            record = evaluation.execute()
    for table in results_tables(record):
        out.print(table)
    if finished:
        out.print("Finished before; nothing was evaluated. overwrite=true evaluates again.", style="yellow")
    out.print(f"Folder: {folder}", soft_wrap=True)
    return record.scalars()


class _Evaluation(Job[EvaluateConfig]):
    def execute(self) -> RunRecord:
        source, statistics = None, {}
        if self.config.source.checkpoint is not None:
            self.source_stage()
            callback, source, _ = self._evaluate("source_evaluation", {})
            statistics = {"source": callback.source, "source_pool": callback.source_pool}
        self.load(Path(self.config.checkpoint), self.classifier)
        # Without the source model's statistics nothing compares with them.
        arguments = statistics or {"source": {}}
        _, evaluation, predictions = self._evaluate("evaluation", self.calibrators, **arguments)
        record = RunRecord(
            experiment=self.config.name,
            seed=None,
            partition=self.partition.to_dict(),
            versions=versions(),
            timing=self.timing,
            source=None if source is None else fine_tuned_record(source, ("source.checkpoint",)),
            fine_tuned=fine_tuned_record(evaluation, ("checkpoint",)),
            calibrated={name: calibrated_record(r) for name, r in evaluation.calibrated.items()},
            deployed=None,
            num_samples=evaluation.num_samples,
            checkpoint=file_digest(self.config.checkpoint),
        )
        self.start_folder()
        self.check_shared()
        if self.leads:
            self.folder.keep_predictions({"checkpoint": predictions}, record.partition)
            self.folder.keep_figures(record)
            self.folder.finish(record)
        return record

    def _evaluate(
        self, stage: str, calibrators: Mapping[str, Calibrator[Any]], **arguments: Any
    ) -> tuple[CalibrationCallback, Evaluation, Predictions]:
        with self.stage(stage):
            seed_everything(self.config.seed, workers=True, verbose=False)
            callback = self.callback(calibrators, **arguments)
            recorder = PredictionRecorder(self.data.validation_roles)
            trainer = self.quiet_trainer(callback, recorder)
            trainer.validate(self.module, self.data, verbose=False)
            evaluation, predictions = self.test(trainer, callback, recorder)
        return callback, evaluation, predictions


def _without_training(
    calibrators: Mapping[str, Calibrator[Any]], with_source: bool
) -> tuple[dict[str, Calibrator[Any]], dict[str, str]]:
    """The calibrators that one model's outputs suffice for, and why the others are left out."""
    left_out = {}
    for name, calibrator in calibrators.items():
        if isinstance(calibrator, PseudoCrossValidation):
            left_out[name] = "it trains further models, which ftc.train does"
        elif isinstance(calibrator, Interpolated):
            left_out[name] = "it makes a model of its own, which ftc.train does"
        elif calibrator.needs_source and not with_source:
            left_out[name] = "it compares with the source model; give that one as source.checkpoint"
    return {name: c for name, c in calibrators.items() if name not in left_out}, left_out
