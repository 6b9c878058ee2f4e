"""Calibrators: estimators of γ. Each takes one type of evidence, which decides what the calibrator can see.

Two lanes are never compared: *seen-only* calibrators use labelled seen target data and the source model,
*unlabelled* ones use target images without labels as well. The oracle is in neither lane: it looks at
evaluated labels (docs/definitions.md, "Evidence and lanes").
"""

from ftc.calibrators.base import Calibration, Calibrator, bootstrap_gamma
from ftc.calibrators.evidence import (
    Evidence,
    Fold,
    FoldEvidence,
    NoEvidence,
    OracleEvidence,
    SeenEvidence,
    UnlabelledEvidence,
)
from ftc.calibrators.folds import FoldPlan
from ftc.calibrators.interpolated import Interpolated
from ftc.calibrators.oracle import Oracle
from ftc.calibrators.pseudo_cv import PseudoCrossValidation
from ftc.calibrators.seen_only import (
    AnchoredLogitGap,
    AverageLogitGap,
    FixedGamma,
    MisrouteMatching,
    MixedAnchor,
    SymmetricMisroute,
)
from ftc.calibrators.selection import Available, Observed, check_new_classes, fit_all, reported_name
from ftc.calibrators.unlabelled import ExpectedAccuracy, MarginMixture, PriorMatching
from ftc.calibrators.weights import WeightPath

__all__ = [
    "AnchoredLogitGap",
    "Available",
    "AverageLogitGap",
    "Calibration",
    "Calibrator",
    "Evidence",
    "ExpectedAccuracy",
    "FixedGamma",
    "Fold",
    "FoldEvidence",
    "FoldPlan",
    "Interpolated",
    "MarginMixture",
    "MisrouteMatching",
    "MixedAnchor",
    "NoEvidence",
    "Observed",
    "Oracle",
    "OracleEvidence",
    "PriorMatching",
    "PseudoCrossValidation",
    "SeenEvidence",
    "SymmetricMisroute",
    "UnlabelledEvidence",
    "WeightPath",
    "bootstrap_gamma",
    "check_new_classes",
    "fit_all",
    "reported_name",
]
