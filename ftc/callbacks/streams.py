"""Streams of outputs of evaluation steps into metrics, by the role of their loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import Metric

from ftc.calibrators import Observed
from ftc.calibrators.base import SeenData
from ftc.errors import InputError
from ftc.evaluation.summary import Evaluated
from ftc.functional import cosine_logits
from ftc.metrics import (
    EvaluatedGapStream,
    LogitScale,
    NearestClassMean,
    OutcomeStream,
    PoolStream,
    ProbabilityStream,
    SeenStream,
)
from ftc.partition import ClassPartition

ROLES = ("val", "test", "gallery", "calibration", "pool")
SEEN_DATA: tuple[SeenData, ...] = ("train", "held_out")


class RoleStreams:
    """The metrics of one evaluation, fed by the role of the loader that a batch comes from.

    Under FSDP ranks need equally many batches: pad evaluation shards, and collect all but the padding.

    Args:
        partition: seen, absent and other columns.
        loaders: the role of each validation loader, in order, see `ftc.CalibrationCallback`.
        top_k: values of k for accuracies.
        pool_from_val: whether the images of ``val`` serve as the pool where no loader has that role.

    Attributes:
        evaluated_role: ``val`` or ``test``, the role of the evaluated samples.
        pool_origin: where the pool comes from, in words.

    Raises:
        InputError: an unknown role, a role of two loaders, not exactly one of ``val`` and ``test``, or
            images after it that class means need.
    """

    def __init__(
        self, partition: ClassPartition, loaders: Sequence[str], top_k: Sequence[int], pool_from_val: bool
    ) -> None:
        loaders = tuple(loaders)
        unknown = [role for role in loaders if role not in ROLES]
        if unknown:
            raise InputError(f"loaders: unknown role {unknown[0]!r}; choose from {', '.join(ROLES)}")
        if len(set(loaders)) != len(loaders) or ("val" in loaders) == ("test" in loaders):
            raise InputError(
                f"loaders={loaders}: name one of 'val' and 'test' once and every other role at most once"
            )
        self.evaluated_role = "val" if "val" in loaders else "test"
        if "gallery" in loaders:
            for role in {"gallery", "calibration"} & set(loaders[loaders.index(self.evaluated_role) :]):
                raise InputError(
                    f"loaders={loaders}: put {role!r} before {self.evaluated_role!r}, which needs class means"
                )
        self.partition = partition
        self.loaders = loaders
        self.top_k = tuple(top_k)
        self.pool_from_val = pool_from_val and "val" in loaders and "pool" not in loaders
        self.pool_origin = "unlabelled pool" if "pool" in loaders else "unlabelled val"
        self._metrics: dict[str, Metric] = {}
        self._means: Tensor | None = None
        self._gallery = False
        self._device = torch.device("cpu")

    @property
    def trains_on_seen(self) -> bool:
        """Whether a loader gives labelled seen training images."""
        return bool({"gallery", "calibration"} & set(self.loaders))

    def begin(self, module: LightningModule, stage: Literal["val", "test"]) -> None:
        """Start a new evaluation.

        Test epochs keep the class means of the last validation, and collect no evidence.
        """
        # Metrics hold float64, which Apple's GPUs do not have.
        self._device = torch.device("cpu") if module.device.type == "mps" else module.device
        partition = self.partition
        metrics: dict[str, Metric] = {
            "outcomes": OutcomeStream(partition, self.top_k),
            "ncm": OutcomeStream(partition, self.top_k),
            "scale": LogitScale(partition),
            "gap": EvaluatedGapStream(partition),
            "probabilities": ProbabilityStream(partition),
        }
        if stage == "val":
            self._means = None
            self._gallery = False
            if "pool" in self.loaders or self.pool_from_val:
                metrics["pool"] = PoolStream(partition)
            if "val" in self.loaders:
                metrics["held_out"] = SeenStream(partition)
            if self.trains_on_seen:
                metrics["train"] = SeenStream(partition)
        self._metrics = {name: metric.to(self._device) for name, metric in metrics.items()}

    def collect(self, loader: int | None, module: LightningModule, outputs: Any) -> None:
        """Add a batch.

        Args:
            loader: index of the batch's validation loader; None for a test loader.
            module: the module whose evaluation step gave the outputs.
            outputs: the step's outputs: ``logits`` (N, C), ``target`` (N,) and perhaps ``features`` (N, D).

        Raises:
            InputError: a loader without a role, or outputs without logits and target.
        """
        if loader is not None and loader >= len(self.loaders):
            raise InputError(
                f"CalibrationCallback: validation loader {loader} has no role; "
                f"loaders={self.loaders} names {len(self.loaders)}"
            )
        if not isinstance(outputs, Mapping) or not {"logits", "target"} <= set(outputs):
            raise InputError(
                f"{type(module).__name__}: evaluation steps must return a dict with 'logits' (N, C) and "
                "'target' (N,) for CalibrationCallback"
            )
        if not len(outputs["target"]):
            return  # nothing but padding
        role = self.evaluated_role if loader is None else self.loaders[loader]
        logits, target = (outputs[name].detach().to(self._device) for name in ("logits", "target"))
        features = outputs.get("features")
        if features is not None:
            features = features.detach().to(self._device)
        if role == self.evaluated_role:
            self._collect_evaluated(logits, target, features)
        elif role == "pool":
            self._metrics["pool"].update(logits)
        else:
            self._metrics["train"].update(logits, target)
            self._gallery |= role == "gallery"
            if features is not None:
                self._collect_means(features, target)

    def _collect_evaluated(self, logits: Tensor, target: Tensor, features: Tensor | None) -> None:
        for name in ("outcomes", "scale", "gap", "probabilities", "held_out"):
            if name in self._metrics:
                self._metrics[name].update(logits, target)
        if self.pool_from_val and "pool" in self._metrics:
            self._metrics["pool"].update(logits)
        if "means" in self._metrics and self._gallery:
            self._means = self._metrics.pop("means").compute()
        if self._means is not None and features is not None:
            self._metrics["ncm"].update(cosine_logits(features, self._means), target)

    def _collect_means(self, features: Tensor, target: Tensor) -> None:
        if "means" not in self._metrics:
            means = NearestClassMean(self.partition.num_classes, features.shape[1])
            self._metrics["means"] = means.to(features.device)
        self._metrics["means"].update(features, target)

    def observed(self) -> Observed:
        """The calibration data of a validation, over all ranks; seen data without samples is left out."""
        seen = {on: self._metrics[on].compute().cpu() for on in SEEN_DATA if on in self._metrics}
        pool = self._metrics["pool"].compute().cpu() if "pool" in self._metrics else None
        return Observed({on: statistics for on, statistics in seen.items() if len(statistics)}, pool)

    def evaluated(self, epoch: int, head: Mapping[str, float], stage: Literal["val", "test"]) -> Evaluated:
        """The evaluated samples, over all ranks; the evaluation ends here, and its metrics are dropped."""
        metrics, self._metrics = self._metrics, {}
        labels = "test" if stage == "test" else self.evaluated_role
        return Evaluated(
            outcomes=metrics["outcomes"].compute().cpu(),
            gap=metrics["gap"].compute().cpu(),
            scale=metrics["scale"].compute(),
            sums=metrics["probabilities"].compute().cpu(),
            ncm=metrics["ncm"].compute().cpu() if self._means is not None else None,
            head=head,
            origin=f"{labels} labels",
            epoch=epoch,
        )
