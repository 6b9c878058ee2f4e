"""Metrics that keep `Outcomes`: at most 34 bytes a sample for top-1 and top-5, never (N, C)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ftc.functional import Outcomes
from ftc.functional import SeenAbsentCurve as Curve
from ftc.functional.accuracy import Average, accuracies
from ftc.functional.curve import curve_of_outcomes
from ftc.functional.outcomes import reduce_logits
from ftc.metrics.states import Stream
from ftc.partition import ClassPartition


class OutcomeStream(Stream):
    """The `Outcomes` of all samples seen so far, over all ranks; the base of metrics computed from them.

    Args:
        partition: seen, absent and other columns of the head.
        top_k: values of k; 1 must be among them.
    """

    margin: list[Tensor]
    threshold: list[Tensor]
    within: list[Tensor]
    target: list[Tensor]

    def __init__(self, partition: ClassPartition, top_k: Sequence[int] = (1,), **kwargs: Any) -> None:
        ks = tuple(sorted(set(top_k)))
        states = {
            "margin": (torch.float64, ()),
            "threshold": (torch.float64, (len(ks),)),
            "within": (torch.bool, (len(ks),)),
            "target": (torch.int32, ()),
        }
        super().__init__(states, **kwargs)
        self.partition = partition
        self.top_k = ks

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add logits (N, C) and labels (N,)."""
        outcomes = reduce_logits(logits, target, self.partition, self.top_k)
        self.margin.append(outcomes.margin)
        self.threshold.append(outcomes.threshold)
        self.within.append(outcomes.within)
        self.target.append(outcomes.target.int())
        self.place.append(self.places(len(outcomes.target)))

    @property
    def outcomes(self) -> Outcomes:
        """The outcomes added so far, with int64 labels."""
        return Outcomes(
            self.joined("margin"),
            self.joined("threshold"),
            self.joined("within"),
            self.joined("target").long(),
            self.top_k,
        )

    def compute(self) -> Any:
        """All outcomes, gathered over the ranks."""
        return self.outcomes


class SeenAbsentCurve(OutcomeStream):
    """The exact curve (`ftc.functional.SeenAbsentCurve`) of streamed logits."""

    def __init__(self, partition: ClassPartition, average: Average = "sample", **kwargs: Any) -> None:
        super().__init__(partition, **kwargs)
        self.average: Average = average

    def compute(self) -> Curve:
        return curve_of_outcomes(self.outcomes, self.partition, self.average)


class PartitionAccuracy(OutcomeStream):
    """Acc_{A/B} at one γ of streamed logits: the dictionary of `ftc.functional.accuracies`, fractions."""

    def __init__(
        self,
        partition: ClassPartition,
        gamma: float = 0.0,
        top_k: Sequence[int] = (1,),
        average: Average = "sample",
        **kwargs: Any,
    ) -> None:
        super().__init__(partition, top_k, **kwargs)
        self.gamma = gamma
        self.average: Average = average

    def compute(self) -> dict[str, float]:
        return accuracies(self.outcomes, self.partition, self.gamma, self.average)
