"""Metrics that keep `Outcomes`: at most 30 bytes a sample for top-1 and top-5, never (N, C)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from ftc.functional import Outcomes
from ftc.functional import SeenAbsentCurve as Curve
from ftc.functional.accuracy import Average, accuracies
from ftc.functional.curve import curve_of_outcomes
from ftc.functional.outcomes import margins, reduce_logits
from ftc.metrics.states import joined
from ftc.partition import ClassPartition


class OutcomeStream(Metric):
    """The `Outcomes` of all samples seen so far, over all ranks; a base for what is computed from them.

    Args:
        partition: seen, absent and other columns of the head.
        top_k: values of k; 1 must be among them.
    """

    full_state_update = False
    margin: list[Tensor]
    threshold: list[Tensor]
    within: list[Tensor]
    target: list[Tensor]

    def __init__(self, partition: ClassPartition, top_k: Sequence[int] = (1,), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.partition = partition
        self.top_k = tuple(sorted(set(top_k)))
        for name in ("margin", "threshold", "within", "target"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add logits (N, C) and labels (N,)."""
        outcomes = reduce_logits(logits, target, self.partition, self.top_k)
        self.margin.append(outcomes.margin)
        self.threshold.append(outcomes.threshold)
        self.within.append(outcomes.within)
        self.target.append(outcomes.target.int())

    @property
    def outcomes(self) -> Outcomes:
        """What was added so far, with int64 labels."""
        target = joined(self.target).long()
        return Outcomes(
            joined(self.margin),
            joined(self.threshold),
            joined(self.within),
            target,
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


class MarginStream(Metric):
    """Margins of images without labels: what the unlabelled lane may look at."""

    full_state_update = False
    margin: list[Tensor]

    def __init__(self, partition: ClassPartition, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.partition = partition
        self.add_state("margin", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor) -> None:
        """Add logits (N, C)."""
        self.margin.append(margins(logits, self.partition))

    def compute(self) -> Tensor:
        """Margins, float64 (N,)."""
        return joined(self.margin)
