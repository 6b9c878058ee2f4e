"""Pure functions of logits, labels and a `ClassPartition`. They need neither Lightning nor Hydra."""

from ftc.functional.accuracy import accuracies, partition_accuracy
from ftc.functional.bootstrap import bootstrap_accuracies
from ftc.functional.copies import near_copies
from ftc.functional.curve import SeenAbsentCurve, curve_of_outcomes, seen_absent_curve
from ftc.functional.features import class_means, cosine_logits, feature_change, imprinted_columns
from ftc.functional.gamma import average_logit_gap, logit_gap, matching_quantile
from ftc.functional.outcomes import Outcomes, reduce_logits
from ftc.functional.per_class import class_accuracies, confusion_changes, predicted_columns
from ftc.functional.probability import (
    LogitSums,
    classwise_ece,
    logit_sums,
    probability_metrics,
    reliability,
    reliability_by_group,
)
from ftc.functional.prototypes import align_norms, prototype_head, variance_ratio
from ftc.functional.representation import class_shift, linear_cka
from ftc.functional.scale import logit_scale
from ftc.functional.shares import class_shares
from ftc.functional.statistics import PoolStatistics, SeenStatistics, pool_statistics, seen_statistics
from ftc.functional.temperature import fit_temperature, matching_temperature
from ftc.functional.updates import update_cosines
from ftc.functional.weights import interpolate_weights

__all__ = [
    "LogitSums",
    "Outcomes",
    "PoolStatistics",
    "SeenAbsentCurve",
    "SeenStatistics",
    "accuracies",
    "align_norms",
    "average_logit_gap",
    "bootstrap_accuracies",
    "class_accuracies",
    "class_means",
    "class_shares",
    "class_shift",
    "classwise_ece",
    "confusion_changes",
    "cosine_logits",
    "curve_of_outcomes",
    "feature_change",
    "fit_temperature",
    "imprinted_columns",
    "interpolate_weights",
    "linear_cka",
    "logit_gap",
    "logit_scale",
    "logit_sums",
    "matching_quantile",
    "matching_temperature",
    "near_copies",
    "partition_accuracy",
    "pool_statistics",
    "predicted_columns",
    "probability_metrics",
    "prototype_head",
    "reduce_logits",
    "reliability",
    "reliability_by_group",
    "seen_absent_curve",
    "seen_statistics",
    "update_cosines",
    "variance_ratio",
]
