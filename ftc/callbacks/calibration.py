"""Seen/absent statistics and calibration at every validation epoch of a LightningModule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from attrs import asdict
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torchmetrics import Metric

from ftc.calibrators import (
    Available,
    AverageLogitGap,
    Calibration,
    Calibrator,
    FoldEvidence,
    FoldPlan,
    Interpolated,
    Oracle,
    OracleEvidence,
    SeenEvidence,
    UnlabelledEvidence,
    fit_all,
)
from ftc.calibrators.base import SeenData
from ftc.callbacks.charts import log_charts
from ftc.errors import InputError
from ftc.evaluation.summary import Bootstrap, Evaluation, evaluate_outcomes, with_intervals
from ftc.functional import (
    Outcomes,
    PoolStatistics,
    SeenAbsentCurve,
    SeenStatistics,
    cosine_logits,
    curve_of_outcomes,
)
from ftc.functional.accuracy import Average
from ftc.metrics import (
    EvaluatedGapStream,
    LogitScale,
    NearestClassMean,
    OutcomeStream,
    PoolStream,
    SeenStream,
)
from ftc.partition import ClassPartition

ROLES = ("val", "test", "gallery", "calibration", "pool")
_ORIGINS: dict[SeenData, str] = {"train": "seen train", "held_out": "seen val"}


class CalibrationCallback(Callback):
    """Reports accuracies, curve, logit scales and every calibrator's γ, and logs them.

    Works with any module whose ``validation_step`` (and ``test_step``) returns ``{"logits", "target"}`` and,
    for the nearest-class-mean probe, ``"features"``. The module's own logging is left alone; ours is named
    ``val/…`` and ``test/…``.

    ``trainer.validate`` before ``trainer.fit`` is epoch −1: it evaluates the source model, and calibrators
    that compare with the source need it. γ is fitted at every validation epoch; a test epoch uses the γ of
    the last validation, and only oracles look at test labels.

    Under FSDP ranks need equally many batches: pad evaluation shards, and return what is no padding.

    Args:
        partition: seen, absent and other head columns.
        calibrators: by name; the oracle is added wherever absent-class labels are evaluated. By default ALG,
            on held-out samples where no loader gives training ones.
        loaders: the role of each validation loader, in order. ``val``: the evaluated samples, whose seen part
            is the held-out evidence; or ``test``: evaluated samples that are watched only, nothing is
            estimated from them (exactly one of the two); ``gallery``: target training images of all classes,
            for the nearest-class-mean probe, whose seen part is calibration data; ``calibration``: labelled
            seen target training images; ``pool``: target images whose labels are ignored. Gallery comes
            before the evaluated samples.
        head: dotted name of the head, a linear layer, for its weight norms and biases; None leaves them out.
        top_k: values of k for accuracies; 1 must be among them.
        average: accuracies as means over samples, or over classes.
        pool_from_val: without a ``pool`` loader the images of ``val`` serve as the unlabelled pool. Say False
            where they are known to be of seen classes only: no pool then.
        folds: evidence of pseudo cross-validation, by plan, for its calibrators.
        source, source_pool: the source model's statistics of labelled seen samples and of the pool, where it
            was evaluated elsewhere; no epoch −1 then.
        bootstrap: intervals of γ̂, AUSUC and accuracies for test epochs; None for none.

    Attributes:
        evaluation: the latest evaluation, None before the first.
        history: validation evaluations so far, epoch −1 first: scalars and curve of each.
        calibrations: γ of every calibrator that is no oracle, fitted at the latest validation.
        source, source_pool: the source model's statistics, from epoch −1.
        available: the evidence of the latest validation.

    Raises:
        InputError: an unknown role, not exactly one ``val`` or ``test``, a gallery after it, a calibrator
            named oracle, or one that moves weights without ``source``.
    """

    def __init__(
        self,
        partition: ClassPartition,
        calibrators: Mapping[str, Calibrator[Any]] | None = None,
        loaders: Sequence[str] = ("val",),
        head: str | None = None,
        top_k: Sequence[int] = (1,),
        average: Average = "sample",
        pool_from_val: bool = True,
        folds: Mapping[FoldPlan, FoldEvidence] | None = None,
        source: Mapping[SeenData, SeenStatistics] | None = None,
        source_pool: PoolStatistics | None = None,
        bootstrap: Bootstrap | None = None,
    ) -> None:
        loaders = tuple(loaders)
        unknown = [role for role in loaders if role not in ROLES]
        if unknown:
            raise InputError(f"loaders: unknown role {unknown[0]!r}; choose from {', '.join(ROLES)}")
        if len(set(loaders)) != len(loaders) or ("val" in loaders) == ("test" in loaders):
            raise InputError(
                f"loaders={loaders}: name one of 'val' and 'test' once and every other role at most once"
            )
        self._evaluated = "val" if "val" in loaders else "test"
        if "gallery" in loaders and loaders.index("gallery") > loaders.index(self._evaluated):
            raise InputError(
                f"loaders={loaders}: put 'gallery' before {self._evaluated!r}, which needs its class means"
            )
        self.partition = partition
        if "oracle" in (calibrators or {}):
            raise InputError("calibrators: the name 'oracle' is taken by the bound; choose another")
        moving = [n for n, c in (calibrators or {}).items() if isinstance(c, Interpolated)]
        if moving and source is None:
            raise InputError(
                f"calibrators: {moving[0]!r} is for the model with interpolated weights; evaluate that "
                "one by a callback of its own, with the source model's statistics as source"
            )
        on: SeenData = "train" if {"gallery", "calibration"} & set(loaders) else "held_out"
        self.calibrators: dict[str, Calibrator[Any]] = (
            {"alg": AverageLogitGap(on)} if calibrators is None else dict(calibrators)
        )
        self.loaders = loaders
        self.head = head
        self.top_k = tuple(top_k)
        self.average: Average = average
        self.evaluation: Evaluation | None = None
        self.history: list[dict[str, Any]] = []
        self.calibrations: dict[str, Calibration] = {}
        self.pool_from_val = pool_from_val
        self.folds = dict(folds or {})
        self.bootstrap = bootstrap
        self.source: dict[SeenData, SeenStatistics] = dict(source or {})
        self.source_pool = source_pool
        self._source_given = source is not None
        self.available = Available()
        self._means: Tensor | None = None
        self._epoch = 0 if self._source_given else -1
        self._streams: dict[str, Metric] = {}

    def state_dict(self) -> dict[str, Any]:
        """Everything fitted, in types that ``weights_only`` loading accepts."""
        return {
            "epoch": self._epoch,
            "source": {on: asdict(statistics) for on, statistics in self.source.items()},
            "source_pool": None if self.source_pool is None else asdict(self.source_pool),
            "seen": {on: asdict(evidence.fine_tuned) for on, evidence in self.available.seen.items()},
            "pool": None
            if self.available.unlabelled is None
            else asdict(self.available.unlabelled.fine_tuned),
            "calibrators": {name: calibrator.state_dict() for name, calibrator in self.calibrators.items()},
            "calibrations": {name: c.to_dict() for name, c in self.calibrations.items()},
            "history": [{**row, "curve": asdict(row["curve"])} for row in self.history],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch = state_dict["epoch"]
        self.source = {on: SeenStatistics(**fields) for on, fields in state_dict["source"].items()}
        source_pool, pool = (state_dict[name] for name in ("source_pool", "pool"))
        self.source_pool = None if source_pool is None else PoolStatistics(**source_pool)
        self.available = self._evidence(
            {on: SeenStatistics(**fields) for on, fields in state_dict["seen"].items()},
            None if pool is None else PoolStatistics(**pool),
        )
        for name, calibrator in self.calibrators.items():
            calibrator.load_state_dict(state_dict["calibrators"].get(name, {}))
        self.calibrations = {n: Calibration.from_dict(c) for n, c in state_dict["calibrations"].items()}
        self.history = [{**row, "curve": SeenAbsentCurve(**row["curve"])} for row in state_dict["history"]]

    # Collecting

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        wanting = [name for name, calibrator in self.calibrators.items() if calibrator.needs_source]
        if wanting and not self.source:
            raise InputError(
                f"calibrator {wanting[0]!r} compares with the source model, which was not evaluated; call "
                "trainer.validate before trainer.fit, or leave the calibrator out"
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._means = None
        self._begin(pl_module)
        device = self._device(pl_module)
        held_out = "val" in self.loaders
        if "pool" in self.loaders or (held_out and self.pool_from_val):
            self._streams["pool"] = PoolStream(self.partition).to(device)
        if held_out:
            self._streams["held_out"] = SeenStream(self.partition).to(device)
        if set(self.loaders) & {"gallery", "calibration"}:
            self._streams["train"] = SeenStream(self.partition).to(device)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(pl_module)

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
            if dataloader_idx >= len(self.loaders):
                raise InputError(
                    f"CalibrationCallback: validation loader {dataloader_idx} has no role; "
                    f"loaders={self.loaders} names {len(self.loaders)}"
                )
            self._collect(self.loaders[dataloader_idx], self._outputs(pl_module, outputs))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._collect(self._evaluated, self._outputs(pl_module, outputs))

    def _begin(self, pl_module: LightningModule) -> None:
        streams = {
            "outcomes": OutcomeStream(self.partition, self.top_k),
            "ncm": OutcomeStream(self.partition, self.top_k),
            "scale": LogitScale(self.partition),
            "gap": EvaluatedGapStream(self.partition),
        }
        self._streams = {name: stream.to(self._device(pl_module)) for name, stream in streams.items()}

    def _collect(self, role: str, outputs: dict[str, Tensor]) -> None:
        logits, target, features = outputs["logits"], outputs["target"], outputs.get("features")
        if not len(target):
            return  # nothing but padding
        if role == self._evaluated:
            self._streams["outcomes"].update(logits, target)
            self._streams["scale"].update(logits, target)
            self._streams["gap"].update(logits, target)
            if "held_out" in self._streams:
                self._streams["held_out"].update(logits, target)
            if "pool" in self._streams and "pool" not in self.loaders:
                self._streams["pool"].update(logits)
            if "gallery" in self._streams:
                self._means = self._streams.pop("gallery").compute()
            if self._means is not None and features is not None:
                self._streams["ncm"].update(cosine_logits(features, self._means), target)
        elif role == "pool":
            self._streams["pool"].update(logits)
        else:
            self._streams["train"].update(logits, target)
            if role == "gallery" and features is not None:
                if "gallery" not in self._streams:
                    means = NearestClassMean(self.partition.num_classes, features.shape[1])
                    self._streams["gallery"] = means.to(features.device)
                self._streams["gallery"].update(features, target)

    def _outputs(self, pl_module: LightningModule, outputs: Any) -> dict[str, Tensor]:
        if not isinstance(outputs, Mapping) or not {"logits", "target"} <= set(outputs):
            raise InputError(
                f"{type(pl_module).__name__}: evaluation steps must return a dict with 'logits' (N, C) and "
                "'target' (N,) for CalibrationCallback"
            )
        device = self._device(pl_module)
        names = ("logits", "target", "features")
        return {name: outputs[name].detach().to(device) for name in names if outputs.get(name) is not None}

    @staticmethod
    def _device(pl_module: LightningModule) -> torch.device:
        # Statistics are float64, which Apple's GPUs do not have.
        return torch.device("cpu") if pl_module.device.type == "mps" else pl_module.device

    # Concluding

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        untrained = trainer.state.fn == "validate" and trainer.global_step == 0
        is_source = not self._source_given and untrained and all(row["epoch"] == -1 for row in self.history)
        if is_source:
            self._epoch = -1
        elif trainer.state.fn != "validate":
            self._epoch = trainer.current_epoch
        outcomes = self._streams["outcomes"].compute()
        seen, pool = self._statistics()
        if is_source:
            self.source, self.source_pool = seen, pool
        self.available = self._evidence(seen, pool)
        methods = {n: c for n, c in self.calibrators.items() if c.evidence is not OracleEvidence}
        self.calibrations = fit_all(methods, self.available)
        evaluation = self._conclude(trainer, pl_module, "val", outcomes)
        self.history.append({**evaluation.scalars(), "curve": evaluation.curve})

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._conclude(trainer, pl_module, "test", self._streams["outcomes"].compute())

    def _statistics(self) -> tuple[dict[SeenData, SeenStatistics], PoolStatistics | None]:
        """What was streamed: labelled seen samples, where there are any, and the pool."""
        names: tuple[SeenData, ...] = ("train", "held_out")
        seen = {on: self._streams[on].compute().cpu() for on in names if on in self._streams}
        pool = self._streams["pool"].compute().cpu() if "pool" in self._streams else None
        return {on: statistics for on, statistics in seen.items() if statistics}, pool

    def _evidence(self, seen: Mapping[SeenData, SeenStatistics], pool: PoolStatistics | None) -> Available:
        """What the calibrators may look at: seen samples with labels, the pool without, the folds."""
        labelled = {
            on: SeenEvidence(_ORIGINS[on], statistics, self.partition, self.source.get(on))
            for on, statistics in seen.items()
        }
        unlabelled = None
        if pool is not None:
            origin = "unlabelled pool" if "pool" in self.loaders else "unlabelled val"
            unlabelled = UnlabelledEvidence(
                origin, pool, self.partition, self.source_pool, labelled.get("held_out")
            )
        return Available(labelled, unlabelled, self.folds)

    def _conclude(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, outcomes: Outcomes
    ) -> Evaluation:
        outcomes = outcomes.cpu()
        curve = curve_of_outcomes(outcomes, self.partition, self.average)
        gap = self._streams["gap"].compute().cpu()
        labels = "test" if stage == "test" else self._evaluated
        evaluated = OracleEvidence(f"{labels} labels", outcomes, gap, self.partition)
        available = replace(self.available, evaluated=evaluated)
        oracles = {n: c for n, c in self.calibrators.items() if c.evidence is OracleEvidence}
        if curve.num_samples["absent"]:
            oracles["oracle"] = Oracle(average=self.average)
        ncm = self._streams["ncm"].compute().cpu() if self._means is not None else None
        evaluation = evaluate_outcomes(
            self._epoch,
            outcomes,
            curve,
            ncm,
            {**self.calibrations, **fit_all(oracles, available)},
            self._streams["scale"].compute(),
            self._head_statistics(pl_module),
            self.partition,
            self.average,
        )
        if self.bootstrap is not None and stage == "test":
            evaluation = with_intervals(
                evaluation,
                outcomes,
                self.calibrators,
                available,
                self.bootstrap,
                self.partition,
                self.average,
            )
        self.evaluation = evaluation
        self._streams = {}
        pl_module.log_dict({f"{stage}/{name}": value for name, value in evaluation.scalars().items()})
        if trainer.is_global_zero:
            log_charts(trainer.loggers, stage, evaluation)
        return evaluation

    def _head_statistics(self, pl_module: LightningModule) -> dict[str, float]:
        if self.head is None:
            return {}
        head = pl_module.get_submodule(self.head)
        if not isinstance(head, nn.Linear):
            raise InputError(f"head={self.head!r}: {type(head).__name__} is not a linear layer")
        weight, bias = (p.full_tensor() if isinstance(p, DTensor) else p for p in (head.weight, head.bias))
        norms = weight.detach().float().norm(dim=1)
        result: dict[str, float] = {}
        for name, ids in (("seen", self.partition.seen), ("absent", self.partition.absent)):
            if ids:
                result[f"head_weight_norm_{name}"] = float(norms[list(ids)].mean())
                if bias is not None:
                    result[f"head_bias_{name}"] = float(bias.detach()[list(ids)].mean())
        return result
