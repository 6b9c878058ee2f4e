"""Seen/absent statistics and calibration at every validation epoch of a LightningModule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from attrs import asdict
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from ftc.calibrators import (
    Available,
    AverageLogitGap,
    Calibration,
    Calibrator,
    FoldEvidence,
    FoldPlan,
    Observed,
    fit_all,
)
from ftc.callbacks.charts import seen_absent_chart
from ftc.callbacks.streams import RoleStreams
from ftc.callbacks.trackers import EvaluationPanel, forgiving, tracker
from ftc.errors import InputError
from ftc.evaluation.summary import Evaluation, Measures, evaluate
from ftc.functional import SeenAbsentCurve
from ftc.metrics import head_statistics
from ftc.partition import ClassPartition


class CalibrationCallback(Callback):
    """Computes and logs accuracies, curve, logit scales and every calibrator's γ.

    It works with any module whose ``validation_step`` (and ``test_step``) returns ``{"logits", "target"}``
    and, for the nearest-class-mean probe, ``"features"``. The module's own logging is left alone; the
    callback logs under ``val/…`` and ``test/…``.

    ``trainer.validate`` before ``trainer.fit`` is epoch −1: it evaluates the source model, and calibrators
    that compare with the source need it. γ is fitted at every validation epoch; a test epoch uses the γ of
    the last validation, and only oracles look at test labels.

    Args:
        partition: seen, absent and other head columns.
        calibrators: calibrators by name; the oracle is added wherever absent-class labels are evaluated. By
            default ALG, on held-out samples where no loader gives training ones.
        loaders: the role of each validation loader, in order (docs/definitions.md, "Evidence and lanes").
            Exactly one is ``val``, the evaluated samples, whose seen part is held-out data, or ``test``,
            evaluated samples that are watched only: nothing is estimated from them. ``calibration``: labelled
            seen target training images. ``gallery``: target training images of the other classes, or of all;
            the class means of the nearest-class-mean probe are those of both, so that both must come before
            the evaluated samples. A validation without gallery images has no probe. ``pool``: target images
            whose labels are ignored.
        head: dotted name of the head, a linear layer, for its weight norms and biases; None leaves them out.
        measures: values of k, averages, and intervals; intervals are for test epochs.
        pool_from_val: whether the images of ``val`` serve as the pool where no loader has that role. Set it
            to False where they are known to be of seen classes only; there is no pool then.
        folds: evidence of pseudo cross-validation, by plan, for its calibrators.
        source: the calibration data under the source model, where that was evaluated elsewhere; there is no
            epoch −1 then.
        fitted: γ of calibrators that were fitted elsewhere, by name, for the weights that are evaluated here.

    Attributes:
        evaluation: the latest evaluation, None before the first.
        history: validation evaluations so far, epoch −1 first: scalars and curve of each.
        calibrations: γ of every calibrator that is no oracle, fitted at the latest validation.
        source: the calibration data under the source model, from epoch −1.
        source_curves: the source model's curve on each split that it was evaluated on, ``val`` or ``test``.
        observed: the calibration data under the model of the latest validation.
        step: training steps that this model had behind it; None before the first validation.
        available: the evidence in `source` and `observed`.

    Raises:
        InputError: wrong loaders (see `RoleStreams`), a calibrator named oracle, one that moves weights
            without ``source``, or one that moves the head without ``fitted``.
    """

    def __init__(
        self,
        partition: ClassPartition,
        calibrators: Mapping[str, Calibrator[Any]] | None = None,
        loaders: Sequence[str] = ("val",),
        head: str | None = None,
        measures: Measures | None = None,
        pool_from_val: bool = True,
        folds: Mapping[FoldPlan, FoldEvidence] | None = None,
        source: Observed | None = None,
        fitted: Mapping[str, Calibration] | None = None,
    ) -> None:
        self.measures = measures or Measures()
        self.streams = RoleStreams(partition, loaders, self.measures.top_k, pool_from_val)
        if calibrators is None:
            calibrators = {"alg": AverageLogitGap("train" if self.streams.trains_on_seen else "held_out")}
        if "oracle" in calibrators:
            raise InputError("calibrators: the name 'oracle' is taken by the bound; choose another")
        self.fitted = dict(fitted or {})
        moving = [
            name
            for name, calibrator in calibrators.items()
            if calibrator.moves and name not in self.fitted and (source is None or calibrator.moves_head)
        ]
        if moving:
            raise InputError(
                f"calibrators: {moving[0]!r} is for a model with moved weights; evaluate that one by a "
                "callback of its own, with what was observed of the source model as source, and with its fit "
                "as fitted where it moves the head"
            )
        self.partition = partition
        self.calibrators = dict(calibrators)
        self.head = head
        self.folds = dict(folds or {})
        self.evaluation: Evaluation | None = None
        self.history: list[dict[str, Any]] = []
        self.calibrations: dict[str, Calibration] = {}
        self.source = source or Observed()
        self.source_curves: dict[str, SeenAbsentCurve] = {}
        self.observed = Observed()
        self.step: int | None = None
        self._source_given = source is not None
        self._epoch = 0 if self._source_given else -1

    @property
    def available(self) -> Available:
        """The evidence of the latest validation."""
        return Available.from_observed(
            self.observed, self.source, self.partition, self.streams.pool_origin, self.folds
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything fitted, in types that ``weights_only`` loading accepts."""
        return {
            "epoch": self._epoch,
            "step": self.step,
            "source": asdict(self.source),
            "source_curves": {stage: asdict(curve) for stage, curve in self.source_curves.items()},
            "observed": asdict(self.observed),
            "calibrators": {name: calibrator.state_dict() for name, calibrator in self.calibrators.items()},
            "history": [{**row, "curve": asdict(row["curve"])} for row in self.history],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch = state_dict["epoch"]
        self.step = state_dict["step"]
        self.source, self.observed = (Observed.restored(state_dict[key]) for key in ("source", "observed"))
        curves = state_dict.get("source_curves", {})
        self.source_curves = {stage: SeenAbsentCurve(**curve) for stage, curve in curves.items()}
        for name, calibrator in self.calibrators.items():
            calibrator.load_state_dict(state_dict["calibrators"].get(name, {}))
        fitted = {n: c.calibration for n, c in self.calibrators.items() if c.lane != "oracle"}
        self.calibrations = {name: found for name, found in fitted.items() if found is not None}
        self.history = [{**row, "curve": SeenAbsentCurve(**row["curve"])} for row in state_dict["history"]]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        wanting = [name for name, calibrator in self.calibrators.items() if calibrator.source]
        if wanting and not self.source.seen and self.source.pool is None:
            raise InputError(
                f"calibrator {wanting[0]!r} compares with the source model, which was not evaluated; call "
                "trainer.validate before trainer.fit, or leave the calibrator out"
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.streams.begin(pl_module, "val")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.streams.begin(pl_module, "test")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking:
            self.streams.collect(dataloader_idx, pl_module, outputs)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.streams.collect(None, pl_module, outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        untrained = trainer.state.fn == "validate" and trainer.global_step == 0
        is_source = not self._source_given and untrained and all(row["epoch"] == -1 for row in self.history)
        if is_source:
            self._epoch = -1
        elif trainer.state.fn != "validate":
            self._epoch = trainer.current_epoch
        elif trainer.current_epoch:
            # Behind a training: the epoch that it ended in.
            self._epoch = trainer.current_epoch - 1
        self.step = trainer.global_step
        self.observed = self.streams.observed()
        if is_source:
            self.source = self.observed
        estimators = {
            n: c for n, c in self.calibrators.items() if c.lane != "oracle" and n not in self.fitted
        }
        self.calibrations = {**self.fitted, **fit_all(estimators, self.available)}
        evaluation = self._conclude(trainer, pl_module, "val")
        self.history.append({**evaluation.scalars(), "curve": evaluation.curve})

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._conclude(trainer, pl_module, "test")

    def _conclude(
        self, trainer: Trainer, pl_module: LightningModule, stage: Literal["val", "test"]
    ) -> Evaluation:
        head = {} if self.head is None else head_statistics(self._linear_head(pl_module), self.partition)
        evaluated = self.streams.evaluated(self._epoch, head, stage)
        measures = self.measures if stage == "test" else replace(self.measures, bootstrap=None)
        evaluation = evaluate(
            evaluated, self.calibrators, self.available, self.partition, measures, self.calibrations
        )
        self.evaluation = evaluation
        pl_module.log_dict({f"{stage}/{name}": value for name, value in evaluation.scalars().items()})
        if evaluation.epoch == -1:
            self.source_curves[stage] = evaluation.curve
        if trainer.is_global_zero and trainer.loggers:
            self._show(trainer, stage, evaluation)
        return evaluation

    def _show(self, trainer: Trainer, stage: str, evaluation: Evaluation) -> None:
        chart = seen_absent_chart(stage, evaluation, self.source_curves.get(stage))
        # Where Lightning logs the scalars.
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        panel = EvaluationPanel(stage, evaluation.epoch, step, chart, evaluation.scale)
        for logger in trainer.loggers:
            forgiving(logger, tracker(logger).show_evaluation)(panel)

    def _linear_head(self, pl_module: LightningModule) -> nn.Linear:
        assert self.head is not None
        head = pl_module.get_submodule(self.head)
        if not isinstance(head, nn.Linear):
            raise InputError(f"head={self.head!r}: {type(head).__name__} is not a linear layer")
        return head
