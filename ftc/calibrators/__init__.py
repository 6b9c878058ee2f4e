"""γ estimators. Each takes one type of evidence; the types decide what a method can see.

Two lanes beside the oracle: *seen-only* (`AverageLogitGap`, `AnchoredLogitGap`, `FixedGamma`) and
*unlabelled* (`PriorMatching`).
"""

from ftc.calibrators.base import Calibration, Calibrator
from ftc.calibrators.evidence import Evidence, NoEvidence, OracleEvidence, SeenEvidence, UnlabelledEvidence
from ftc.calibrators.oracle import Oracle
from ftc.calibrators.seen_only import AnchoredLogitGap, AverageLogitGap, FixedGamma
from ftc.calibrators.unlabelled import PriorMatching

__all__ = [
    "AnchoredLogitGap",
    "AverageLogitGap",
    "Calibration",
    "Calibrator",
    "Evidence",
    "FixedGamma",
    "NoEvidence",
    "Oracle",
    "OracleEvidence",
    "PriorMatching",
    "SeenEvidence",
    "UnlabelledEvidence",
]
