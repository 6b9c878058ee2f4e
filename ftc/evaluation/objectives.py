"""Numbers to choose hyper-parameters by, of which only the oracles know labels of absent classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from ftc.calibrators import FoldEvidence
from ftc.functional import curve_of_outcomes, partition_accuracy
from ftc.functional.accuracy import Criterion
from ftc.functional.statistics import SeenStatistics, keep_seen
from ftc.partition import ClassPartition
from ftc.results import StageRecord


def seen_only_scores(
    partition: ClassPartition,
    held_out: tuple[Tensor, Tensor] | None,
    deployed: tuple[SeenStatistics, float] | None,
    folds: Iterable[FoldEvidence],
) -> dict[str, float]:
    """Scores of a run on labelled seen images held out of fine-tuning (V), where the data for them are there.

    Args:
        partition: seen, absent and other columns.
        held_out: the fine-tuned model's logits (N, C) and labels (N,); samples of other classes are left out.
        deployed: V under the deployed model, and its γ̂; None where that is not seen-only.
        folds: the folds of pseudo cross-validation.

    Returns:
        ``held_out_acc_seen_within``: S/S on V; ``held_out_acc_seen``: S/Y on V at γ̂; ``pseudo_ausuc``: AUSUC
        on V between pseudo-seen and pseudo-absent classes, mean over the folds.
    """
    scores = {}
    if held_out is not None:
        logits, target = keep_seen(*held_out, partition)
        if len(target):
            within = partition_accuracy(logits, target, partition)["acc_seen_within"]
            scores["held_out_acc_seen_within"] = within
    if deployed is not None:
        statistics, gamma = deployed
        scores["held_out_acc_seen"] = float((statistics.hit & (statistics.margin >= gamma)).double().mean())
    curves = [curve_of_outcomes(fold.outcomes, fold.partition) for each in folds for fold in each.folds]
    if curves:
        scores["pseudo_ausuc"] = sum(curve.ausuc for curve in curves) / len(curves)
    return scores


def oracle_scores(
    fine_tuned: StageRecord, calibrated: Mapping[str, StageRecord], criterion: Criterion
) -> dict[str, float | None]:
    """Bounds from test labels: ``oracle_ausuc``, and ``oracle_{criterion}``, the best score that a γ reaches.

    Args:
        fine_tuned: the fine-tuned model at γ = 0.
        calibrated: the calibrated stages by name; without an oracle there are no bounds.
        criterion: what γ* is the best by.
    """
    if "oracle" not in calibrated:
        return {}
    return {
        "oracle_ausuc": fine_tuned.metrics["ausuc"],
        f"oracle_{criterion}": calibrated["oracle"].metrics[criterion],
    }
