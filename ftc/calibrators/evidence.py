"""The evidence that calibrators may look at, as types: labels of absent classes reach oracles alone.

Evidence holds numbers already reduced from logits, so none of these types can carry more than its fields say
(docs/definitions.md, "Evidence and lanes").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from ftc.calibrators.weights import LinearHead
from ftc.errors import InputError
from ftc.functional.gamma import non_target_gap
from ftc.functional.inputs import SEEN, as_logits, label_groups
from ftc.functional.outcomes import Outcomes, reduce_logits
from ftc.functional.statistics import PoolStatistics, SeenStatistics, pool_statistics, seen_statistics
from ftc.partition import ClassPartition, without


@dataclass(frozen=True)
class Evidence:
    """The base of all evidence.

    Attributes:
        origin: where the evidence comes from, in words that results and tables print.
    """

    origin: str

    def resampled(self, generator: Generator) -> Evidence:
        """Draw a bootstrap replicate: as many samples, with replacement."""
        return self


@dataclass(frozen=True)
class NoEvidence(Evidence):
    """The evidence of a calibrator that looks at no data."""

    origin: str = "nothing"


@dataclass(frozen=True)
class SeenEvidence(Evidence):
    """Labelled seen-class target samples.

    Attributes:
        fine_tuned: the samples' statistics under the fine-tuned model.
        partition: seen, absent and other columns.
        source: their statistics under the source model, or None where it was not evaluated.

    Raises:
        InputError: no sample, or another number of samples under the source model.
    """

    fine_tuned: SeenStatistics
    partition: ClassPartition
    source: SeenStatistics | None = None

    @classmethod
    def from_logits(
        cls,
        logits: Any,
        target: Any,
        partition: ClassPartition,
        source_logits: Any = None,
        origin: str = "seen train",
    ) -> SeenEvidence:
        """The evidence of logits (N, C), the source model's where they are given, and labels (N,).

        Raises:
            InputError: a sample that is not of a seen class.
        """
        source = None if source_logits is None else seen_statistics(source_logits, target, partition)
        return cls(origin, seen_statistics(logits, target, partition), partition, source)

    def __post_init__(self) -> None:
        if len(self.fine_tuned) == 0:
            raise InputError(f"{self.origin}: no seen sample to calibrate on; give labelled seen target data")
        if self.source is not None and len(self.source) != len(self.fine_tuned):
            raise InputError(
                f"{self.origin}: the source model was evaluated on {len(self.source)} seen samples, the "
                f"fine-tuned one on {len(self.fine_tuned)}; evaluate both on the same data"
            )

    def resampled(self, generator: Generator) -> SeenEvidence:
        rows = _drawn(len(self.fine_tuned), generator)
        source = None if self.source is None else self.source.rows(rows)
        return replace(self, fine_tuned=self.fine_tuned.rows(rows), source=source)


@dataclass(frozen=True)
class UnlabelledEvidence(Evidence):
    """Target images of any class without their labels, and labelled seen ones to compare them with.

    Attributes:
        fine_tuned: the images' statistics under the fine-tuned model.
        partition: seen, absent and other columns.
        source: their statistics under the source model, or None where it was not evaluated.
        seen: labelled seen samples held out of fine-tuning, or None.

    Raises:
        InputError: no image, or another number of images under the source model.
    """

    fine_tuned: PoolStatistics
    partition: ClassPartition
    source: PoolStatistics | None = None
    seen: SeenEvidence | None = None

    @classmethod
    def from_logits(
        cls,
        logits: Any,
        partition: ClassPartition,
        source_logits: Any = None,
        origin: str = "unlabelled images",
        seen: SeenEvidence | None = None,
    ) -> UnlabelledEvidence:
        """The evidence of logits (N, C), the source model's where they are given."""
        source = None if source_logits is None else pool_statistics(source_logits, partition)
        return cls(origin, pool_statistics(logits, partition), partition, source, seen)

    def __post_init__(self) -> None:
        if len(self.fine_tuned) == 0:
            raise InputError(f"{self.origin}: no image in the unlabelled pool; give at least one")
        if self.source is not None and len(self.source) != len(self.fine_tuned):
            raise InputError(
                f"{self.origin}: the source model was evaluated on {len(self.source)} images, the fine-tuned "
                f"one on {len(self.fine_tuned)}; evaluate both on the same data"
            )

    @property
    def class_share(self) -> float:
        """``|U| / (|S| + |U|)``, the share of absent-class images if all classes are equally common."""
        named = len(self.partition.seen) + len(self.partition.absent)
        return len(self.partition.absent) / named

    def resampled(self, generator: Generator) -> UnlabelledEvidence:
        rows = _drawn(len(self.fine_tuned), generator)
        return replace(
            self,
            fine_tuned=self.fine_tuned.rows(rows),
            source=None if self.source is None else self.source.rows(rows),
            seen=None if self.seen is None else self.seen.resampled(generator),
        )


@dataclass(frozen=True)
class HeadEvidence(Evidence):
    """The head of the model, and no data.

    Attributes:
        head: the head.
        partition: seen, absent and other columns.
    """

    head: LinearHead
    partition: ClassPartition


@dataclass(frozen=True)
class SeenFeatures:
    """Features of labelled seen samples.

    Attributes:
        features: float32 (N, D).
        target: int64 (N,), seen columns.
    """

    features: Tensor
    target: Tensor

    @classmethod
    def kept(cls, features: Tensor, target: Tensor, partition: ClassPartition) -> SeenFeatures:
        """The samples of seen classes among features (N, D) and labels (N,); all others are dropped."""
        keep = label_groups(target, partition) == SEEN
        return cls(features[keep], target[keep])


@dataclass(frozen=True)
class FeatureEvidence(Evidence):
    """Features of target images of any class without their labels, and of labelled seen ones.

    Attributes:
        head: the model's head.
        partition: seen, absent and other columns.
        pool: features of the unlabelled images, float32 (N, D).
        train: the labelled seen training samples.
        held_out: labelled seen samples held out of fine-tuning, or None.
        unlabelled: the same pool and held-out samples, reduced, under the same model and the source model.

    Raises:
        InputError: features and logits of other numbers of images.
    """

    head: LinearHead
    partition: ClassPartition
    pool: Tensor
    train: SeenFeatures
    held_out: SeenFeatures | None
    unlabelled: UnlabelledEvidence

    def __post_init__(self) -> None:
        if len(self.pool) != len(self.unlabelled.fine_tuned):
            raise InputError(
                f"{self.origin}: features of {len(self.pool)} images, logits of "
                f"{len(self.unlabelled.fine_tuned)}; give both of the same images"
            )


@dataclass(frozen=True)
class Fold:
    """A fold of PCV: S divided into pseudo-seen and pseudo-absent classes, and held-out samples of S.

    Attributes:
        partition: pseudo-seen classes as seen, pseudo-absent ones as absent.
        outcomes: the samples' outcomes under the model fine-tuned on the pseudo-seen classes.
        source: their outcomes under the source model.
    """

    partition: ClassPartition
    outcomes: Outcomes
    source: Outcomes

    @classmethod
    def from_logits(
        cls, logits: Any, source_logits: Any, target: Any, partition: ClassPartition, pseudo_seen: list[int]
    ) -> Fold:
        """The fold of logits (N, C) and labels (N,), all of seen classes.

        Args:
            logits: logits of the model fine-tuned on the pseudo-seen classes.
            source_logits: logits of the source model for the same samples, (N, C).
            target: head columns.
            partition: the true partition; its absent columns take no part in the fold.
            pseudo_seen: the seen classes that the fold's model was fine-tuned on.

        Raises:
            InputError: a sample that is not of a seen class, or no class on one side.
        """
        pseudo_absent = without(partition.seen, pseudo_seen)
        if not pseudo_absent or not set(pseudo_seen) <= set(partition.seen):
            raise InputError(
                f"pseudo_seen={pseudo_seen}: name some of the seen classes {list(partition.seen)}, not all"
            )
        SeenEvidence.from_logits(logits, target, partition)
        fold = ClassPartition(partition.num_classes, pseudo_seen, pseudo_absent)
        fine_tuned, source = (
            reduce_logits(_without_absent(z, partition), target, fold) for z in (logits, source_logits)
        )
        return cls(fold, fine_tuned, source)


@dataclass(frozen=True)
class FoldEvidence(Evidence):
    """The folds of pseudo cross-validation (PCV), made of seen data alone.

    Raises:
        InputError: no fold.
    """

    folds: tuple[Fold, ...]

    def __post_init__(self) -> None:
        if not self.folds:
            raise InputError(f"{self.origin}: no fold; train at least one")

    def resampled(self, generator: Generator) -> FoldEvidence:
        folds = []
        for fold in self.folds:
            rows = _drawn(len(fold.outcomes.target), generator)
            folds.append(replace(fold, outcomes=fold.outcomes.rows(rows), source=fold.source.rows(rows)))
        return replace(self, folds=tuple(folds))


@dataclass(frozen=True)
class OracleEvidence(Evidence):
    """The evaluated samples with all their labels; a calibrator that takes them is an oracle.

    Attributes:
        outcomes: the outcomes of all evaluated samples.
        gap: mean of z over S \\ {y} minus mean over U \\ {y}, float64 (N,).
        partition: the partition that they were reduced with.
    """

    outcomes: Outcomes
    gap: Tensor
    partition: ClassPartition

    @classmethod
    def from_logits(
        cls, logits: Any, target: Any, partition: ClassPartition, origin: str = "evaluated labels"
    ) -> OracleEvidence:
        """The evidence of logits (N, C) and labels (N,)."""
        outcomes = reduce_logits(logits, target, partition)
        gap = non_target_gap(as_logits(logits, partition), outcomes.target, partition)
        return cls(origin, outcomes, gap, partition)

    def resampled(self, generator: Generator) -> OracleEvidence:
        rows = _drawn(len(self.gap), generator)
        return replace(self, outcomes=self.outcomes.rows(rows), gap=self.gap[rows])


def _without_absent(logits: Any, partition: ClassPartition) -> Tensor:
    """Logits whose true absent columns lie below all others, so that nothing is sent there."""
    z = as_logits(logits, partition).double().clone()
    z[:, list(partition.absent)] = z.amin(1, keepdim=True) - 1
    return z


def _drawn(size: int, generator: Generator) -> Tensor:
    return torch.randint(size, (size,), generator=generator)
