"""The part of a run's record that tells of classes one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ftc.functional import class_accuracies, confusion_changes
from ftc.results import Confusion, PerClass, none_if_nan

# Confusions that a record keeps of each calibrator, the most changed ones.
_MOST_CONFUSIONS = 20


def per_class(
    target: Tensor, names: Sequence[str], before: Tensor, after: Mapping[str, Tensor]
) -> PerClass | None:
    """Accuracies by class, and what calibration changes in confusions.

    Args:
        target: int64 (N,), labels of the evaluated samples.
        names: one for each head column.
        before: int64 (N,), the columns that the fine-tuned model predicts at γ = 0.
        after: the same of every calibrated model, by name of the calibrator.

    Returns:
        None without samples.
    """
    if not len(target):
        return None
    columns, counts = target.unique(return_counts=True)

    def accuracies(predicted: Tensor) -> list[float | None]:
        return [none_if_nan(value) for value in class_accuracies(target, predicted, columns).tolist()]

    return PerClass(
        columns=columns.tolist(),
        names=[names[column] for column in columns.tolist()],
        num_samples=counts.tolist(),
        fine_tuned=accuracies(before),
        calibrated={name: accuracies(predicted) for name, predicted in after.items()},
        confusions={
            name: [
                Confusion(
                    label=names[change.label],
                    predicted=names[change.predicted],
                    before=change.before,
                    after=change.after,
                )
                for change in confusion_changes(target, before, predicted)[:_MOST_CONFUSIONS]
            ]
            for name, predicted in after.items()
        },
    )
