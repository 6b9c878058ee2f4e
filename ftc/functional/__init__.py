"""Pure functions of logits, labels and a `ClassPartition`. They need torch and nothing else of ours."""

from ftc.functional.accuracy import accuracies, partition_accuracy
from ftc.functional.curve import SeenAbsentCurve, curve_of_outcomes, seen_absent_curve
from ftc.functional.features import class_means, cosine_logits
from ftc.functional.gamma import average_logit_gap, logit_gap, matching_quantile
from ftc.functional.outcomes import Outcomes, reduce_logits
from ftc.functional.scale import logit_scale

__all__ = [
    "Outcomes",
    "SeenAbsentCurve",
    "accuracies",
    "average_logit_gap",
    "class_means",
    "cosine_logits",
    "curve_of_outcomes",
    "logit_gap",
    "logit_scale",
    "matching_quantile",
    "partition_accuracy",
    "reduce_logits",
    "seen_absent_curve",
]
