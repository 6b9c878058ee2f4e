"""The arithmetic of pseudo cross-validation (PCV); a stage of the run trains the folds."""

from __future__ import annotations

from typing import Literal

from ftc.calibrators.base import Calibration, Calibrator
from ftc.calibrators.evidence import Fold, FoldEvidence
from ftc.calibrators.folds import FoldPlan
from ftc.functional.accuracy import CRITERIA, accuracies, check_criterion
from ftc.functional.curve import curve_of_outcomes

FoldCriterion = Literal["acc_all", "harmonic", "balanced", "source_floor"]


class PseudoCrossValidation(Calibrator[FoldEvidence]):
    """PCV: classes of S play the absent ones in models fine-tuned without them (the paper).

    Each fold fine-tunes the source model on part of S with the recipe of the run, and picks γ on the curve
    between pseudo-seen and pseudo-absent classes over held-out samples of S; γ̂ is the mean over the folds.
    No absent-class sample takes part. Shorter folds run through the whole schedule in fewer epochs.

    Args:
        folds, share, seed, length: see `FoldPlan`.
        criterion: the point of a fold's curve to pick: the best by ``acc_all``, ``balanced`` (mean of the two
            groups' accuracies) or ``harmonic``; or ``source_floor``, the released recipe: the best by
            ``acc_all`` among the points whose pseudo-absent accuracy is at least the source model's.

    Raises:
        InputError: see `FoldPlan`; an unknown criterion.
    """

    evidence = FoldEvidence
    held_out = True

    def __init__(
        self,
        folds: int = 3,
        share: float = 0.5,
        criterion: FoldCriterion = "source_floor",
        seed: int = 0,
        length: float = 1.0,
    ) -> None:
        check_criterion(criterion, (*CRITERIA, "source_floor"))
        self.folds = FoldPlan(folds, share, seed, length)
        self.criterion = criterion
        which = {"source_floor": "", "acc_all": ", best overall"}.get(criterion, f", {criterion}")
        self.title = f"PCV{which}" + (f", {length:g} of the epochs" if length < 1 else "")

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
