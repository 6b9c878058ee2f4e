"""The numbers that estimators see: three of a labelled seen sample, three of an unlabelled image."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from torch import Tensor

from ftc.functional.gamma import check_seen, non_target_gap
from ftc.functional.inputs import SEEN, as_logits, check_target, columns, label_groups
from ftc.functional.outcomes import reduce_logits, routes
from ftc.partition import ClassPartition


@frozen(eq=False)
class SeenStatistics:
    """Samples of seen classes under one model.

    Attributes:
        gap: mean of z over S \\ {y} minus mean over U, float64 (N,); ``nan`` where one of them is empty.
        margin: max_F z − max_U z, float64 (N,).
        hit: argmax_F z = y, bool (N,).
    """

    gap: Tensor
    margin: Tensor
    hit: Tensor

    def __len__(self) -> int:
        return len(self.gap)

    def cpu(self) -> SeenStatistics:
        """The statistics on the CPU."""
        return SeenStatistics(self.gap.cpu(), self.margin.cpu(), self.hit.cpu())

    def rows(self, keep: Tensor) -> SeenStatistics:
        """Some of the samples: a mask (N,) or indices."""
        return SeenStatistics(self.gap[keep], self.margin[keep], self.hit[keep])


def seen_statistics(logits: Any, target: Any, partition: ClassPartition) -> SeenStatistics:
    """`SeenStatistics` of logits (N, C) and labels (N,), all of seen classes.

    Raises:
        InputError: a sample that is not of a seen class; see `ftc.functional.reduce_logits` for the rest.
    """
    outcomes = reduce_logits(logits, target, partition)
    y = outcomes.target
    check_seen(y, partition)
    gaps = non_target_gap(as_logits(logits, partition), y, partition)
    return SeenStatistics(gaps, outcomes.margin, outcomes.hit_at_1(partition))


def keep_seen(logits: Any, target: Any, partition: ClassPartition) -> tuple[Tensor, Tensor]:
    """The samples of seen classes among logits (N, C) and labels (N,).

    Labels decide only which samples are kept, so neither the labels nor the presence of absent-class samples
    changes what comes out.
    """
    logits = as_logits(logits, partition)
    y = check_target(target, logits, partition)
    kept = label_groups(y, partition) == SEEN
    return logits[kept], y[kept]


@frozen(eq=False)
class PoolStatistics:
    """Unlabelled images under one model.

    Attributes:
        margin: max_F z − max_U z, float64 (N,).
        top_absent: argmax_U z, a head column, int64 (N,).
        odds: log of the probability of U minus that of S under the model, float64 (N,).
    """

    margin: Tensor
    top_absent: Tensor
    odds: Tensor

    def __len__(self) -> int:
        return len(self.margin)

    def cpu(self) -> PoolStatistics:
        """The statistics on the CPU."""
        return PoolStatistics(self.margin.cpu(), self.top_absent.cpu(), self.odds.cpu())

    def rows(self, keep: Tensor) -> PoolStatistics:
        """Some of the images: a mask (N,) or indices."""
        return PoolStatistics(self.margin[keep], self.top_absent[keep], self.odds[keep])


def pool_statistics(logits: Any, partition: ClassPartition) -> PoolStatistics:
    """`PoolStatistics` of logits (N, C).

    Raises:
        InputError: see `ftc.functional.reduce_logits`.
    """
    z = as_logits(logits, partition).double()
    absent, seen = (z[:, columns(partition, group, z.device)].logsumexp(1) for group in ("absent", "seen"))
    return PoolStatistics(*routes(logits, partition), absent - seen)
