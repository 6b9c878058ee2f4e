"""Epoch −1, fine-tuning and test: the stages of a run that share one trainer."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import Logger

from ftc.assembly.components import build_method, build_module
from ftc.assembly.trainers import averaging_callbacks, training_callbacks
from ftc.callbacks import CalibrationCallback, PredictionRecorder, fit, name_stage
from ftc.errors import InputError
from ftc.evaluation.summary import calibrated_record, fine_tuned_record
from ftc.finetune import FineTuneModule
from ftc.functional import near_copies
from ftc.reporting.tables import warn_of_near_copies
from ftc.results import none_if_nan
from ftc.runs.parts import Parts
from ftc.runs.stages import Stages


@frozen(eq=False)
class Training:
    """One training by one method, and the evaluations before and after it.

    Attributes:
        parts: the run's parts.
        module: trains the classifier by the method.
        trainer: the run's own trainer.
        callback: evaluates the model and fits the calibrators.
        recorder: keeps the outputs of the latest evaluation.
    """

    parts: Parts
    module: FineTuneModule
    trainer: Trainer
    callback: CalibrationCallback
    recorder: PredictionRecorder

    def evaluate_source(self) -> dict[str, Any]:
        """Epoch −1: evaluate the source model on validation and test data.

        Returns:
            The result of `test`, for the source model, and ``calibration``, the callback's state.
        """
        config = self.parts.config
        data = self.parts.data
        others = {split: len(r.targets) for split in ("val", "test") if (r := data.readers[split])}
        counts = ", ".join(
            f"{n:,} {split}" for split, n in {"seen train": data.num_trained, **others}.items()
        )
        self.parts.out.print(f"Evaluating the source model: {counts} images")
        name_stage(self.trainer, "source model")
        seed_everything(config.seed, workers=True, verbose=False)
        self.trainer.validate(self.module, self.parts.data, verbose=False)
        origin = "source domain" if config.trains_source else "pre-training"
        result = {**self._tested(origin, *self.parts.begun_from), "calibration": self.callback.state_dict()}
        return {**result, "near_copies": self._near_copies()}

    def _near_copies(self) -> float | None:
        """The share of V that is nearly an image that is trained on; None without V."""
        latest, seen = self.recorder.latest, torch.tensor(self.parts.partition.seen)
        if not self.parts.config.data.held_out:
            return None
        val, trained = latest["val"], latest["calibration"]
        kept = torch.isin(val["target"], seen)
        share = near_copies(
            val["features"][kept], val["target"][kept], trained["features"], trained["target"]
        )
        warn_of_near_copies(self.parts.out, share)
        return none_if_nan(share)

    def fine_tune(self, stages: Stages) -> None:
        """Fine-tune the source model, or go on with an interrupted training of it.

        Whatever the trainer's options, γ belongs to the final weights: they are validated once more where
        training went on after its last validation, and where the method moved them afterwards.

        Raises:
            InputError: no step was taken.
        """
        parts = self.parts
        parts.out.print(
            f"Fine-tuning: {parts.config.trainer.max_epochs} epochs, {parts.data.num_trained:,} images of "
            f"{len(parts.partition.seen)} classes"
        )
        seed_everything(parts.config.seed, workers=True, verbose=False)
        name_stage(self.trainer, "fine-tuning")
        with self.module.prepared(parts.data):
            checkpointing = fit(self.trainer, self.module, parts.data)
        if not self.trainer.global_step:
            raise InputError("trainer: fine-tuning ended before its first step; leave it time for one")
        name_stage(self.trainer, "fine-tuned model")
        if self.callback.step != self.trainer.global_step or self.module.moved_at_end:
            self.trainer.validate(self.module, parts.data, verbose=False)
        stages.timing["fine_tune"] = checkpointing.seconds

    def test(self) -> dict[str, Any]:
        """Evaluate the fine-tuned model on the test data.

        Returns:
            Stage records ``model`` and ``calibrated``, ``num_samples``, and ``predictions`` by loader and
            field; plain types and tensors.
        """
        if not self.recorder.latest:
            # The run was interrupted between its last validation and here.
            trainer = self.parts.trainers.quiet("fine-tuned model", self.recorder)
            trainer.validate(self.module, self.parts.data, verbose=False)
        return self._tested(*self.module.method.uses)

    def _tested(self, *uses: str) -> dict[str, Any]:
        self.trainer.test(self.module, self.parts.data, verbose=False)
        evaluation = self.callback.evaluation
        assert evaluation is not None
        return {
            "model": fine_tuned_record(evaluation, uses).model_dump(),
            "calibrated": {n: calibrated_record(r).model_dump() for n, r in evaluation.calibrated.items()},
            "num_samples": evaluation.num_samples,
            "predictions": dict(self.recorder.latest),
        }


def build_training(
    parts: Parts, callback: CalibrationCallback, loggers: list[Logger], stages: Stages
) -> Training:
    """Build module, trainer and callbacks of the run's own training."""
    config, folder = parts.config, stages.folder
    module = build_module(parts.classifier, config.optimizer, config.scheduler, build_method(config))
    recorder = PredictionRecorder(parts.data.validation_roles)
    callbacks = [
        *training_callbacks(config, config.seed, folder.checkpoint),
        callback,
        recorder,
        *averaging_callbacks(config),
    ]
    trainer = parts.trainers.whole(callbacks, loggers, folder.path)
    return Training(parts, module, trainer, callback, recorder)
