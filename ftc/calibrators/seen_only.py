"""The seen-only lane: nothing but labelled seen target data and the source model."""

from __future__ import annotations

import math

from ftc.calibrators.base import Calibration, Calibrator
from ftc.calibrators.evidence import Evidence, NoEvidence, SeenEvidence
from ftc.errors import InputError


class FixedGamma(Calibrator[Evidence]):
    """A γ given by hand.

    Raises:
        InputError: γ is not a finite number.
    """

    evidence = NoEvidence

    def __init__(self, gamma: float) -> None:
        if not math.isfinite(gamma):
            raise InputError(f"gamma={gamma}: give a finite number of logits")
        self.gamma = float(gamma)

    def fit(self, evidence: Evidence) -> Calibration:
        return Calibration(self.gamma, ("nothing",))


class AverageLogitGap(Calibrator[SeenEvidence]):
    """ALG: the mean gap between the logits of S \\ {y} and of U over seen target samples (paper)."""

    evidence = SeenEvidence

    def fit(self, evidence: SeenEvidence) -> Calibration:
        return Calibration(float(evidence.gap.mean()), (evidence.origin,))


class AnchoredLogitGap(Calibrator[SeenEvidence]):
    """Anchored ALG: ALG of the fine-tuned model minus ALG of the source, both on the same samples.

    The source model's own gap is not the fine-tuning's doing, so it is not corrected away
    (PROTOCOL: "Beyond the paper").
    """

    evidence = SeenEvidence
    needs_source = True

    def fit(self, evidence: SeenEvidence) -> Calibration:
        if evidence.source_gap is None:
            raise InputError(
                "anchored ALG needs the source model's logits on the same samples; evaluate the source model "
                "first (trainer.validate before trainer.fit), or leave the calibrator out"
            )
        gamma = float(evidence.gap.mean()) - float(evidence.source_gap.mean())
        return Calibration(gamma, (evidence.origin, "source model"))
