"""The interface of every γ estimator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from ftc.calibrators.evidence import Evidence

E = TypeVar("E", bound=Evidence)


@dataclass(frozen=True)
class Calibration:
    """γ in logits and the data it was estimated from."""

    gamma: float
    uses: tuple[str, ...]


class Calibrator(ABC, Generic[E]):
    """An estimator of γ from one type of evidence.

    Attributes:
        evidence: the type `fit` takes; callers choose what to hand over by it.
        needs_source: whether `fit` needs the source model's numbers in its evidence.
    """

    evidence: ClassVar[type[Evidence]]
    needs_source: ClassVar[bool] = False

    @abstractmethod
    def fit(self, evidence: E) -> Calibration:
        """Estimate γ.

        Raises:
            InputError: the evidence does not suffice.
        """
