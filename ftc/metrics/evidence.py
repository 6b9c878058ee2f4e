"""Streams of the numbers that calibrators may look at."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ftc.functional.gamma import non_target_gap
from ftc.functional.statistics import (
    PoolStatistics,
    SeenStatistics,
    keep_seen,
    pool_statistics,
    seen_statistics,
)
from ftc.metrics.states import Stream
from ftc.partition import ClassPartition


class SeenStream(Stream):
    """`SeenStatistics` of the seen samples among those streamed; all others are dropped on entry.

    Labels decide only which samples are kept, so neither the labels nor the presence of absent-class samples
    changes what comes out. Keeps 21 bytes a sample.
    """

    gap: list[Tensor]
    margin: list[Tensor]
    hit: list[Tensor]

    def __init__(self, partition: ClassPartition, **kwargs: Any) -> None:
        states = {"gap": (torch.float64, ()), "margin": (torch.float64, ()), "hit": (torch.bool, ())}
        super().__init__(states, **kwargs)
        self.partition = partition

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add logits (N, C) and labels (N,)."""
        kept, labels = keep_seen(logits, target, self.partition)
        places = self.places(len(target))
        if len(labels):
            seen = torch.tensor(self.partition.seen, device=self.device)
            self.place.append(places[torch.isin(torch.as_tensor(target, device=self.device), seen)])
            statistics = seen_statistics(kept, labels, self.partition)
            self.gap.append(statistics.gap)
            self.margin.append(statistics.margin)
            self.hit.append(statistics.hit)

    def compute(self) -> SeenStatistics:
        """Statistics of all seen samples, of which there may be none."""
        return SeenStatistics(self.joined("gap"), self.joined("margin"), self.joined("hit"))


class PoolStream(Stream):
    """`PoolStatistics` of images without labels, for the unlabelled lane. Keeps 24 bytes a sample."""

    margin: list[Tensor]
    top_absent: list[Tensor]
    odds: list[Tensor]

    def __init__(self, partition: ClassPartition, **kwargs: Any) -> None:
        states = {"margin": (torch.float64, ()), "top_absent": (torch.int32, ()), "odds": (torch.float64, ())}
        super().__init__(states, **kwargs)
        self.partition = partition

    def update(self, logits: Tensor) -> None:
        """Add logits (N, C)."""
        statistics = pool_statistics(logits, self.partition)
        self.margin.append(statistics.margin)
        self.top_absent.append(statistics.top_absent.int())
        self.odds.append(statistics.odds)
        self.place.append(self.places(len(statistics.margin)))

    def compute(self) -> PoolStatistics:
        """Statistics of all images."""
        return PoolStatistics(self.joined("margin"), self.joined("top_absent").long(), self.joined("odds"))


class EvaluatedGapStream(Stream):
    """`non_target_gap` of all evaluated samples: an oracle's evidence. Keeps 12 bytes a sample."""

    gap: list[Tensor]

    def __init__(self, partition: ClassPartition, **kwargs: Any) -> None:
        super().__init__({"gap": (torch.float64, ())}, **kwargs)
        self.partition = partition

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add logits (N, C) and labels (N,)."""
        self.gap.append(non_target_gap(logits, target, self.partition))
        self.place.append(self.places(len(self.gap[-1])))

    def compute(self) -> Tensor:
        """Gaps in logits, float64 (N,)."""
        return self.joined("gap")
