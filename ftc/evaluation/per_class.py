"""The part of a run's record that tells of classes one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ftc.functional import class_accuracies, confusion_changes, predicted_columns
from ftc.partition import ClassPartition
from ftc.results import Confusion, PerClass, StageRecord

# Confusions that a record keeps of each calibrator, the most changed ones.
_MOST_CONFUSIONS = 20


def per_class(
    logits: Tensor,
    target: Tensor,
    partition: ClassPartition,
    names: Sequence[str],
    calibrated: Mapping[str, StageRecord],
    moved: Mapping[str, Tensor] | None = None,
) -> PerClass:
    """Accuracies by class, and what calibration changes in confusions.

    Args:
        logits: logits of the fine-tuned model, (N, C).
        target: int64 (N,), labels.
        partition: seen, absent and other columns.
        names: one for each head column.
        calibrated: the calibrated stages by name, each with its γ.
        moved: the columns that models with moved weights predict, int64 (N,), by name of the calibrator.
    """
    gammas = [0.0, *(stage.gamma for stage in calibrated.values())]
    before, *others = predicted_columns(logits, partition, gammas)
    after = {**dict(zip(calibrated, others, strict=True)), **(moved or {})}
    columns, counts = target.unique(return_counts=True)
    return PerClass(
        columns=columns.tolist(),
        names=[names[column] for column in columns.tolist()],
        num_samples=counts.tolist(),
        fine_tuned=class_accuracies(target, before)[columns].tolist(),
        calibrated={
            n: class_accuracies(target, predicted)[columns].tolist() for n, predicted in after.items()
        },
        confusions={name: _confusions(target, before, predicted, names) for name, predicted in after.items()},
    )


def _confusions(target: Tensor, before: Tensor, after: Tensor, names: Sequence[str]) -> list[Confusion]:
    return [
        Confusion(
            label=names[change.label],
            predicted=names[change.predicted],
            before=change.before,
            after=change.after,
        )
        for change in confusion_changes(target, before, after)[:_MOST_CONFUSIONS]
    ]
