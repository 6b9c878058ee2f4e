"""torchmetrics states around `ftc.functional`: streaming, small per sample, synchronised over ranks."""

from ftc.metrics.binned import BinnedCurve, BinnedSeenAbsentCurve
from ftc.metrics.evidence import EvaluatedGapStream, PoolStream, SeenStream
from ftc.metrics.features import FeatureDrift, NearestClassMean
from ftc.metrics.head import head_statistics
from ftc.metrics.outcomes import OutcomeStream, PartitionAccuracy, SeenAbsentCurve
from ftc.metrics.probability import ProbabilityStream
from ftc.metrics.scale import LogitScale

__all__ = [
    "BinnedCurve",
    "BinnedSeenAbsentCurve",
    "EvaluatedGapStream",
    "FeatureDrift",
    "LogitScale",
    "NearestClassMean",
    "OutcomeStream",
    "PartitionAccuracy",
    "PoolStream",
    "ProbabilityStream",
    "SeenAbsentCurve",
    "SeenStream",
    "head_statistics",
]
