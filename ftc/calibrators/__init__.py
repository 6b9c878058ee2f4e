"""Calibrators: estimators of γ. Each takes one type of evidence, which decides what the calibrator can see.

Some move weights as well, and γ is for those.

Two lanes are never compared: *seen-only* calibrators use labelled seen target data and the source model,
*unlabelled* ones use target images without labels as well. The oracle is in neither lane: it looks at
evaluated labels (docs/definitions.md, "Evidence and lanes").
"""

from ftc.calibrators.base import Calibration, Calibrator, bootstrap_gamma
from ftc.calibrators.evidence import (
    Evidence,
    FeatureEvidence,
    Fold,
    FoldEvidence,
    HeadEvidence,
    NoEvidence,
    OracleEvidence,
    SeenEvidence,
    SeenFeatures,
    UnlabelledEvidence,
)
from ftc.calibrators.folds import FoldPlan
from ftc.calibrators.heads import Prototypes, WeightAligning
from ftc.calibrators.interpolated import Interpolated
from ftc.calibrators.oracle import Oracle
from ftc.calibrators.pseudo_cv import PseudoCrossValidation
from ftc.calibrators.seen_only import (
    AnchoredLogitGap,
    AverageLogitGap,
    Committee,
    FixedGamma,
    MisrouteMatching,
    MixedAnchor,
    SymmetricMisroute,
)
from ftc.calibrators.selection import Available, Observed, check_new_classes, fit_all, reported_name
from ftc.calibrators.unlabelled import ExpectedAccuracy, MarginMixture, PriorMatching
from ftc.calibrators.weights import LinearHead, WeightPath

__all__ = [
    "AnchoredLogitGap",
    "Available",
    "AverageLogitGap",
    "Calibration",
    "Calibrator",
    "Committee",
    "Evidence",
    "ExpectedAccuracy",
    "FeatureEvidence",
    "FixedGamma",
    "Fold",
    "FoldEvidence",
    "FoldPlan",
    "HeadEvidence",
    "Interpolated",
    "LinearHead",
    "MarginMixture",
    "MisrouteMatching",
    "MixedAnchor",
    "NoEvidence",
    "Observed",
    "Oracle",
    "OracleEvidence",
    "PriorMatching",
    "Prototypes",
    "PseudoCrossValidation",
    "SeenEvidence",
    "SeenFeatures",
    "SymmetricMisroute",
    "UnlabelledEvidence",
    "WeightAligning",
    "WeightPath",
    "bootstrap_gamma",
    "check_new_classes",
    "fit_all",
    "reported_name",
]
