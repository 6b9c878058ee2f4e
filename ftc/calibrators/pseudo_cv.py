"""Pseudo cross-validation: the arithmetic. Training the folds is a stage of its own."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import comb
from typing import Literal

from ftc.calibrators.base import Calibration, Calibrator
from ftc.calibrators.evidence import Fold, FoldEvidence
from ftc.errors import InputError
from ftc.functional.accuracy import accuracies
from ftc.functional.curve import curve_of_outcomes
from ftc.partition import ClassPartition

FoldCriterion = Literal["acc_all", "harmonic", "balanced", "source_floor"]
_CRITERIA = ("acc_all", "harmonic", "balanced", "source_floor")


@dataclass(frozen=True)
class FoldPlan:
    """Which classes play which part in which fold.

    Attributes:
        folds: K.
        share: of the seen classes that are pseudo-seen; at least one class stays on each side.
        seed: of the draws, and of the folds' training.
        length: of a fold's training, as a share of the epochs of fine-tuning; at least one epoch.

    Raises:
        InputError: no fold, a share outside (0, 1), or a length outside (0, 1].
    """

    folds: int = 3
    share: float = 0.5
    seed: int = 0
    length: float = 1.0

    def __post_init__(self) -> None:
        if self.folds < 1:
            raise InputError(f"folds={self.folds}: give at least 1")
        if not 0 < self.share < 1:
            raise InputError(f"share={self.share}: give a share of the seen classes between 0 and 1")
        if not 0 < self.length <= 1:
            raise InputError(f"length={self.length}: give a share of the epochs, above 0 and at most 1")

    def epochs(self, epochs: int) -> int:
        """How long a fold is trained where fine-tuning takes so many epochs."""
        return max(round(self.length * epochs), 1)

    def draw(self, partition: ClassPartition) -> list[list[int]]:
        """The pseudo-seen classes of every fold; no two folds alike while there are enough choices.

        Raises:
            InputError: a single seen class.
        """
        seen = list(partition.seen)
        if len(seen) < 2:
            raise InputError(
                "pseudo cross-validation needs two seen classes, the partition has one; "
                "use another calibrator"
            )
        size = min(max(round(self.share * len(seen)), 1), len(seen) - 1)
        # Only random() is guaranteed to repeat across Python versions.
        generator = random.Random(self.seed)
        drawn: list[list[int]] = []
        while len(drawn) < self.folds:
            keys = {column: generator.random() for column in seen}
            choice = sorted(sorted(seen, key=keys.__getitem__)[:size])
            if choice not in drawn or len(drawn) >= comb(len(seen), size):
                drawn.append(choice)
        return drawn


class PseudoCrossValidation(Calibrator[FoldEvidence]):
    """PCV: classes of S play the absent ones in models fine-tuned without them (paper).

    Each fold fine-tunes the source model on part of S with the real recipe, and picks γ on the curve between
    pseudo-seen and pseudo-absent classes over held-out samples of S; γ̂ is the mean over the folds. No
    absent-class sample takes part. Folds of a smaller length run through the whole schedule in fewer epochs.

    Args:
        folds, share, seed, length: see `FoldPlan`.
        criterion: which point of a fold's curve: ``acc_all``, ``balanced`` (mean of the two groups'
            accuracies), ``harmonic``, or ``source_floor``, the released recipe: best overall among the points
            whose pseudo-absent accuracy is at least the source model's.

    Raises:
        InputError: see `FoldPlan`; an unknown criterion.
    """

    evidence = FoldEvidence

    def __init__(
        self,
        folds: int = 3,
        share: float = 0.5,
        criterion: FoldCriterion = "source_floor",
        seed: int = 0,
        length: float = 1.0,
    ) -> None:
        if criterion not in _CRITERIA:
            raise InputError(f"criterion={criterion!r}: choose from {', '.join(_CRITERIA)}")
        self.plan = FoldPlan(folds, share, seed, length)
        self.criterion = criterion

    @property
    def needs_held_out(self) -> bool:
        return True

    def estimate(self, evidence: FoldEvidence) -> Calibration:
        gammas = [self._pick(fold) for fold in evidence.folds]
        details = {f"gamma_fold_{i}": gamma for i, gamma in enumerate(gammas)}
        return Calibration(sum(gammas) / len(gammas), (evidence.origin, "source model"), details=details)

    def _pick(self, fold: Fold) -> float:
        curve = curve_of_outcomes(fold.outcomes, fold.partition)
        if self.criterion == "source_floor":
            floor = accuracies(fold.source, fold.partition)["acc_absent"]
            return curve.best("acc_all", absent_floor=floor)
        return curve.best(self.criterion)
