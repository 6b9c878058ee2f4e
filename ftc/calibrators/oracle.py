"""The upper bound."""

from __future__ import annotations

from ftc.calibrators.base import Calibration, Calibrator
from ftc.calibrators.evidence import OracleEvidence


class Oracle(Calibrator[OracleEvidence]):
    """γ*: the best Acc_{Y/Y} on the evaluated data itself. It sees every label: a bound, never a method."""

    evidence = OracleEvidence

    def fit(self, evidence: OracleEvidence) -> Calibration:
        return Calibration(evidence.curve.best("acc_all"), (evidence.origin,))
