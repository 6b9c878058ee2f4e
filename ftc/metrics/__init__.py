"""torchmetrics states around `ftc.functional`: streaming, small per sample, synchronised over ranks."""

from ftc.metrics.features import NearestClassMean
from ftc.metrics.outcomes import MarginStream, OutcomeStream, PartitionAccuracy, SeenAbsentCurve
from ftc.metrics.scale import LogitGapStream, LogitScale

__all__ = [
    "LogitGapStream",
    "LogitScale",
    "MarginStream",
    "NearestClassMean",
    "OutcomeStream",
    "PartitionAccuracy",
    "SeenAbsentCurve",
]
