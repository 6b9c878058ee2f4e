"""What γ changes class by class: predictions, accuracies and confusions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ftc.functional.inputs import as_logits
from ftc.functional.outcomes import routes
from ftc.partition import ClassPartition


class ConfusionChange(NamedTuple):
    """How often samples of a class are taken for another class, before and after."""

    label: int
    predicted: int
    before: int
    after: int


def predicted_columns(logits: Any, partition: ClassPartition, gammas: Sequence[float]) -> Tensor:
    """The predicted head columns argmax_Y z for each γ, added to the absent ones: int64 (len(gammas), N).

    Ties go as in all accuracies (docs/definitions.md, "The seen–absent curve and AUSUC").

    Args:
        logits: (N, C).
        partition: seen, absent and other columns.
        gammas: values of γ, in logits.

    Raises:
        InputError: logits of another width, or that are not finite.
    """
    z = as_logits(logits, partition)
    margin, top_absent = routes(z, partition)
    fixed = torch.tensor(partition.fixed, device=z.device)
    top_fixed = fixed[z[:, fixed].argmax(1)]
    to_absent = torch.tensor(gammas, dtype=torch.float64, device=z.device)[:, None] > margin
    return torch.where(to_absent, top_absent, top_fixed)


def class_accuracies(target: Tensor, predicted: Tensor) -> Tensor:
    """The share of each class's samples that are predicted right, float64, up to the largest label.

    Args:
        target: int64 (N,), labels.
        predicted: int64 (N,), predicted columns.

    Returns:
        One fraction a column; ``nan`` for a class without samples.
    """
    counts = torch.bincount(target)
    return torch.bincount(target[predicted == target], minlength=len(counts)).double() / counts


def confusion_changes(target: Tensor, before: Tensor, after: Tensor) -> list[ConfusionChange]:
    """The confusions that are more or fewer after a change of predictions, the largest change first.

    Args:
        target: int64 (N,), labels.
        before, after: int64 (N,), predicted columns.
    """
    wrong_before, wrong_after = before != target, after != target
    pairs = torch.cat(
        [
            torch.stack([target[wrong_before], before[wrong_before]], 1),
            torch.stack([target[wrong_after], after[wrong_after]], 1),
        ]
    )
    found, index = pairs.unique(dim=0, return_inverse=True)
    first = int(wrong_before.sum())
    counts = [torch.bincount(part, minlength=len(found)) for part in (index[:first], index[first:])]
    rows = torch.cat([found, torch.stack(counts, 1)], 1).tolist()
    changed = [ConfusionChange(*row) for row in rows if row[2] != row[3]]
    return sorted(changed, key=lambda c: (-abs(c.after - c.before), c.label, c.predicted))
