"""A metric that keeps `LogitSums`, from which probabilities follow at every γ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ftc.functional import LogitSums, logit_sums
from ftc.metrics.states import Stream
from ftc.partition import ClassPartition

_SUMS = ("sum_fixed", "sum_absent", "squares_fixed", "squares_absent", "own")


class ProbabilityStream(Stream):
    """The `LogitSums` of all samples seen so far, over all ranks. Keeps 24 bytes a sample.

    The margins and labels of the same samples, which `ftc.functional.probability_metrics` wants as well, are
    those of an `OutcomeStream`.
    """

    sum_fixed: list[Tensor]
    sum_absent: list[Tensor]
    squares_fixed: list[Tensor]
    squares_absent: list[Tensor]
    own: list[Tensor]

    def __init__(self, partition: ClassPartition, **kwargs: Any) -> None:
        super().__init__(dict.fromkeys(_SUMS, (torch.float32, ())), **kwargs)
        self.partition = partition

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add logits (N, C) and labels (N,)."""
        sums = logit_sums(logits, target, self.partition)
        for name in _SUMS:
            getattr(self, name).append(getattr(sums, name).float())
        self.place.append(self.places(len(sums.own)))

    def compute(self) -> LogitSums:
        """The sums of all samples."""
        return LogitSums(
            self.joined("sum_fixed"),
            self.joined("sum_absent"),
            self.joined("squares_fixed"),
            self.joined("squares_absent"),
            self.joined("own"),
        )
