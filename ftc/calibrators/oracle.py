"""The oracle, which bounds every γ of a model from above."""

from __future__ import annotations

from ftc.calibrators.base import Calibration, Calibrator, by_criterion
from ftc.calibrators.evidence import OracleEvidence
from ftc.functional.accuracy import Average, Criterion
from ftc.functional.curve import curve_of_outcomes


class Oracle(Calibrator[OracleEvidence]):
    """γ*, the best point of the evaluated samples' own curve. It sees every label: a bound, no estimate.

    Args:
        criterion: the score to maximise, see `ftc.functional.accuracy.criterion_scores`; Acc_{Y/Y} by
            default.
        average: accuracies as means over samples, or over classes.

    Raises:
        InputError: an unknown criterion.
    """

    lane = "oracle"
    evidence = OracleEvidence

    def __init__(self, criterion: Criterion = "acc_all", average: Average = "sample") -> None:
        self.title = by_criterion("oracle", criterion)
        self.criterion: Criterion = criterion
        self.average: Average = average

    def estimate(self, evidence: OracleEvidence) -> Calibration:
        curve = curve_of_outcomes(evidence.outcomes, evidence.partition, self.average)
        return Calibration(curve.best(self.criterion), (evidence.origin,), "oracle")
