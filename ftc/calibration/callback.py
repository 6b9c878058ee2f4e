"""Seen/absent statistics and calibration at every validation epoch of a LightningModule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import asdict
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics import Metric

from ftc.calibration.charts import log_charts
from ftc.calibration.evaluation import Evaluation, evaluate_outcomes
from ftc.calibrators import (
    AverageLogitGap,
    Calibration,
    Calibrator,
    Evidence,
    NoEvidence,
    Oracle,
    OracleEvidence,
    SeenEvidence,
    UnlabelledEvidence,
)
from ftc.errors import InputError
from ftc.functional import Outcomes, SeenAbsentCurve, cosine_logits, curve_of_outcomes
from ftc.functional.accuracy import Average
from ftc.functional.outcomes import ABSENT, label_groups
from ftc.metrics import LogitGapStream, LogitScale, MarginStream, NearestClassMean, OutcomeStream
from ftc.partition import ClassPartition

ROLES = ("val", "gallery", "calibration", "pool")


class CalibrationCallback(Callback):
    """Reports accuracies, curve, logit scales and every calibrator's γ, and logs them.

    Works with any module whose ``validation_step`` (and ``test_step``) returns ``{"logits", "target"}`` and,
    for the nearest-class-mean probe, ``"features"``. The module's own logging is left alone; ours is named
    ``val/…`` and ``test/…``.

    ``trainer.validate`` before ``trainer.fit`` is epoch −1: it evaluates the source model, and calibrators
    that compare with the source need it. γ is fitted at every validation epoch; a test epoch uses the γ of
    the last validation, and only the oracle looks at test labels.

    Not for FSDP: evaluation shards may be of unequal length.

    Args:
        partition: seen, absent and other head columns.
        calibrators: by name; the oracle is added wherever absent-class labels are evaluated.
        loaders: the role of each validation loader, in order. ``val``: the evaluated samples (exactly one);
            ``gallery``: target training images of all classes, for the nearest-class-mean probe, whose seen
            part is calibration data; ``calibration``: labelled seen target training images; ``pool``: target
            images whose labels are ignored. Without a pool the validation images serve as one. Gallery comes
            before ``val``.
        head: dotted name of the head, a linear layer, for its weight norms and biases; None leaves them out.
        top_k: values of k for accuracies; 1 must be among them.
        average: accuracies as means over samples, or over classes.

    Attributes:
        evaluation: the latest evaluation, None before the first.
        history: validation evaluations so far, epoch −1 first: scalars and curve of each.
        calibrations: γ of every calibrator but the oracle, fitted at the latest validation.

    Raises:
        InputError: an unknown role, not exactly one ``val``, a gallery after it, a calibrator named oracle.
    """

    def __init__(
        self,
        partition: ClassPartition,
        calibrators: Mapping[str, Calibrator[Any]] | None = None,
        loaders: Sequence[str] = ("val",),
        head: str | None = None,
        top_k: Sequence[int] = (1,),
        average: Average = "sample",
    ) -> None:
        loaders = tuple(loaders)
        unknown = [role for role in loaders if role not in ROLES]
        if unknown:
            raise InputError(f"loaders: unknown role {unknown[0]!r}; choose from {', '.join(ROLES)}")
        if len(set(loaders)) != len(loaders) or "val" not in loaders:
            raise InputError(f"loaders={loaders}: name 'val' once and every other role at most once")
        if "gallery" in loaders and loaders.index("gallery") > loaders.index("val"):
            raise InputError(
                f"loaders={loaders}: put 'gallery' before 'val', its class means are needed there"
            )
        self.partition = partition
        if "oracle" in (calibrators or {}):
            raise InputError("calibrators: the name 'oracle' is taken by the bound; choose another")
        self.calibrators: dict[str, Calibrator[Any]] = (
            {"alg": AverageLogitGap()} if calibrators is None else dict(calibrators)
        )
        self.loaders = loaders
        self.head = head
        self.top_k = tuple(top_k)
        self.average: Average = average
        self.evaluation: Evaluation | None = None
        self.history: list[dict[str, Any]] = []
        self.calibrations: dict[str, Calibration] = {}
        self._source_gap: Tensor | None = None
        self._means: Tensor | None = None
        self._epoch = -1
        self._streams: dict[str, Metric] = {}

    def state_dict(self) -> dict[str, Any]:
        """Everything fitted, in types that ``weights_only`` loading accepts."""
        return {
            "epoch": self._epoch,
            "source_gap": self._source_gap,
            "calibrations": {
                n: {"gamma": c.gamma, "uses": list(c.uses)} for n, c in self.calibrations.items()
            },
            "history": [{**row, "curve": asdict(row["curve"])} for row in self.history],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch = state_dict["epoch"]
        self._source_gap = state_dict["source_gap"]
        self.calibrations = {
            name: Calibration(c["gamma"], tuple(c["uses"])) for name, c in state_dict["calibrations"].items()
        }
        self.history = [{**row, "curve": SeenAbsentCurve(**row["curve"])} for row in state_dict["history"]]

    # Collecting

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        wanting = [name for name, calibrator in self.calibrators.items() if calibrator.needs_source]
        if wanting and self._source_gap is None:
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
        if "pool" in self.loaders:
            self._streams["pool"] = MarginStream(self.partition).to(device)
        if self._wants(SeenEvidence):
            self._streams["gap"] = LogitGapStream(self.partition).to(device)

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
        self._collect("val", self._outputs(pl_module, outputs))

    def _begin(self, pl_module: LightningModule) -> None:
        streams = {
            "outcomes": OutcomeStream(self.partition, self.top_k),
            "ncm": OutcomeStream(self.partition, self.top_k),
            "scale": LogitScale(self.partition),
        }
        self._streams = {name: stream.to(self._device(pl_module)) for name, stream in streams.items()}

    def _collect(self, role: str, outputs: dict[str, Tensor]) -> None:
        logits, target, features = outputs["logits"], outputs["target"], outputs.get("features")
        if role == "val":
            self._streams["outcomes"].update(logits, target)
            self._streams["scale"].update(logits, target)
            if "gallery" in self._streams:
                self._means = self._streams.pop("gallery").compute()
            if self._means is not None and features is not None:
                self._streams["ncm"].update(cosine_logits(features, self._means), target)
        elif role == "pool":
            self._streams["pool"].update(logits)
        else:
            if "gap" in self._streams:
                self._streams["gap"].update(logits, target)
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
        is_source = untrained and all(row["epoch"] == -1 for row in self.history)
        self._epoch = -1 if is_source else trainer.current_epoch
        outcomes = self._streams["outcomes"].compute()
        self.calibrations = self._fit(outcomes, is_source)
        evaluation = self._conclude(trainer, pl_module, "val", outcomes)
        self.history.append({**evaluation.scalars(), "curve": evaluation.curve})

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._conclude(trainer, pl_module, "test", self._streams["outcomes"].compute())

    def _fit(self, outcomes: Outcomes, is_source: bool) -> dict[str, Calibration]:
        evidence: dict[type[Evidence], Evidence] = {NoEvidence: NoEvidence()}
        if "gap" in self._streams:
            gap = self._streams["gap"].compute()
            if is_source:
                self._source_gap = gap.cpu()
            source = None if self._source_gap is None else self._source_gap.to(gap.device)
            evidence[SeenEvidence] = SeenEvidence("seen train", gap, source)
        if self._wants(UnlabelledEvidence):
            pool = self._streams["pool"].compute() if "pool" in self._streams else outcomes.margin
            origin = "unlabelled pool" if "pool" in self._streams else "unlabelled val"
            evidence[UnlabelledEvidence] = UnlabelledEvidence.from_margins(pool, self.partition, origin)
        return {name: c.fit(evidence[c.evidence]) for name, c in self.calibrators.items()}

    def _conclude(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, outcomes: Outcomes
    ) -> Evaluation:
        calibrations = dict(self.calibrations)
        curve = curve_of_outcomes(outcomes, self.partition, self.average)
        if bool((label_groups(outcomes.target, self.partition) == ABSENT).any()):
            calibrations["oracle"] = Oracle().fit(OracleEvidence(f"{stage} labels", curve))
        ncm = self._streams["ncm"].compute() if self._means is not None else None
        self.evaluation = evaluate_outcomes(
            self._epoch,
            outcomes,
            curve,
            ncm,
            calibrations,
            self._streams["scale"].compute(),
            self._head_statistics(pl_module),
            self.partition,
            self.average,
        )
        self._streams = {}
        pl_module.log_dict({f"{stage}/{name}": value for name, value in self.evaluation.scalars().items()})
        if trainer.is_global_zero:
            log_charts(trainer.loggers, stage, self.evaluation)
        return self.evaluation

    def _wants(self, evidence: type[Evidence]) -> bool:
        return any(calibrator.evidence is evidence for calibrator in self.calibrators.values())

    def _head_statistics(self, pl_module: LightningModule) -> dict[str, float]:
        if self.head is None:
            return {}
        head = pl_module.get_submodule(self.head)
        if not isinstance(head, nn.Linear):
            raise InputError(f"head={self.head!r}: {type(head).__name__} is not a linear layer")
        norms = head.weight.detach().float().norm(dim=1)
        result: dict[str, float] = {}
        for name, ids in (("seen", self.partition.seen), ("absent", self.partition.absent)):
            if ids:
                result[f"head_weight_norm_{name}"] = float(norms[list(ids)].mean())
                if head.bias is not None:
                    result[f"head_bias_{name}"] = float(head.bias.detach()[list(ids)].mean())
        return result
