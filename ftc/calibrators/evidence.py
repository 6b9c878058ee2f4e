"""What a calibrator may look at, as types: labels of absent classes cannot reach a method.

Evidence holds numbers already reduced from logits, so none of these types can carry more than its fields say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ftc.errors import InputError
from ftc.functional.curve import SeenAbsentCurve, seen_absent_curve
from ftc.functional.gamma import logit_gap
from ftc.functional.outcomes import margins
from ftc.partition import ClassPartition


@dataclass(frozen=True)
class Evidence:
    """Where the evidence comes from, in words that results and tables print."""

    origin: str


@dataclass(frozen=True)
class NoEvidence(Evidence):
    """Nothing at all."""

    origin: str = "nothing"


@dataclass(frozen=True)
class SeenEvidence(Evidence):
    """Labelled seen-class target samples.

    Attributes:
        gap: `logit_gap` of each sample under the fine-tuned model, float64 (N,).
        source_gap: the same samples' gaps under the source model, or None where it was not evaluated.
    """

    gap: Tensor
    source_gap: Tensor | None = None

    @classmethod
    def from_logits(
        cls,
        logits: Any,
        target: Any,
        partition: ClassPartition,
        source_logits: Any = None,
        origin: str = "seen train",
    ) -> SeenEvidence:
        """Evidence of logits (N, C) and labels (N,).

        Raises:
            InputError: a sample that is not of a seen class.
        """
        source = None if source_logits is None else logit_gap(source_logits, target, partition)
        return cls(origin, logit_gap(logits, target, partition), source)

    def __post_init__(self) -> None:
        if len(self.gap) == 0:
            raise InputError(f"{self.origin}: no seen sample to calibrate on; give labelled seen target data")
        if self.source_gap is not None and len(self.source_gap) != len(self.gap):
            raise InputError(
                f"{self.origin}: the source model was evaluated on {len(self.source_gap)} seen samples, the "
                f"fine-tuned one on {len(self.gap)}; evaluate both on the same data"
            )


@dataclass(frozen=True)
class UnlabelledEvidence(Evidence):
    """Target images of any class without their labels.

    Attributes:
        margin: max_F z − max_U z of each image under the fine-tuned model, float64 (N,).
        class_prior: |U| / (|S| + |U|), the share of absent-class images if all classes are equally common.
    """

    margin: Tensor
    class_prior: float

    @classmethod
    def from_logits(
        cls, logits: Any, partition: ClassPartition, origin: str = "unlabelled images"
    ) -> UnlabelledEvidence:
        """Evidence of logits (N, C)."""
        return cls.from_margins(margins(logits, partition), partition, origin)

    @classmethod
    def from_margins(cls, margin: Tensor, partition: ClassPartition, origin: str) -> UnlabelledEvidence:
        """Evidence of margins (N,)."""
        named = len(partition.seen) + len(partition.absent)
        return cls(origin, margin, len(partition.absent) / named)

    def __post_init__(self) -> None:
        if len(self.margin) == 0:
            raise InputError(f"{self.origin}: no image in the unlabelled pool; give at least one")


@dataclass(frozen=True)
class OracleEvidence(Evidence):
    """The evaluated samples themselves with all their labels. Only the oracle takes it."""

    curve: SeenAbsentCurve

    @classmethod
    def from_logits(
        cls, logits: Any, target: Any, partition: ClassPartition, origin: str = "evaluated labels"
    ) -> OracleEvidence:
        """Evidence of logits (N, C) and labels (N,)."""
        return cls(origin, seen_absent_curve(logits, target, partition))
