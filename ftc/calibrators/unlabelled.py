"""The unlabelled lane: target images of any class, without labels."""

from __future__ import annotations

from ftc.calibrators.base import Calibration, Calibrator
from ftc.calibrators.evidence import UnlabelledEvidence
from ftc.errors import InputError
from ftc.functional.gamma import matching_quantile


class PriorMatching(Calibrator[UnlabelledEvidence]):
    """Prior matching: γ sends the share π of the unlabelled images to the absent classes.

    Not for pools whose share of absent-class images is unknown and far from π: an error of 0.1 in π costs
    one to six points (PROTOCOL: "Beyond the paper").

    Args:
        prior: π, the share of absent-class images in the pool; by default |U| / (|S| + |U|).

    Raises:
        InputError: π outside [0, 1].
    """

    evidence = UnlabelledEvidence

    def __init__(self, prior: float | None = None) -> None:
        if prior is not None and not 0 <= prior <= 1:
            raise InputError(f"prior={prior}: give a share between 0 and 1, or null for |U| / (|S| + |U|)")
        self.prior = prior

    def fit(self, evidence: UnlabelledEvidence) -> Calibration:
        prior = evidence.class_prior if self.prior is None else self.prior
        source = "class counts" if self.prior is None else f"prior {self.prior:g}"
        return Calibration(matching_quantile(evidence.margin, prior), (evidence.origin, source))
