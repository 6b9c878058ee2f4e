"""What γ changes class by class: predictions, accuracies and confusions."""

from __future__ import annotations

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


def predicted_columns(logits: Any, partition: ClassPartition, gamma: float = 0.0) -> Tensor:
    """The predicted head columns argmax_Y z, γ added to the absent ones: int64 (N,).

    Ties go as in all accuracies (docs/definitions.md, "The seen–absent curve and AUSUC").

    Args:
        logits: (N, C).
        partition: seen, absent and other columns.
        gamma: γ in logits.

    Raises:
        InputError: logits of another width, or that are not finite.
    """
    z = as_logits(logits, partition)
    margin, top_absent = routes(z, partition)
    fixed = torch.tensor(partition.fixed, device=z.device)
    # A copy of the fixed columns in blocks would gain little: this is done once a run.
    top_fixed = fixed[z[:, fixed].argmax(1)]
    return torch.where(gamma > margin, top_absent, top_fixed)


def class_accuracies(target: Tensor, predicted: Tensor, columns: Tensor) -> Tensor:
    """The share of each class's samples that are predicted right, float64 (K,); ``nan`` without samples.

    Args:
        target: int64 (N,), labels.
        predicted: int64 (N,), predicted columns.
        columns: int64 (K,), the classes.
    """
    width = int(max(columns.max(), target.max())) + 1 if len(target) else int(columns.max()) + 1
    counts = torch.bincount(target, minlength=width)
    hits = torch.bincount(target[predicted == target], minlength=width)
    return (hits.double() / counts)[columns]


def confusion_changes(target: Tensor, before: Tensor, after: Tensor) -> list[ConfusionChange]:
    """The confusions that are more or fewer after a change of predictions, the largest change first.

    Args:
        target: int64 (N,), labels.
        before, after: int64 (N,), predicted columns.
    """
    width = int(torch.cat([target, before, after]).max()) + 1 if len(target) else 1
    keys, counts = [], []
    for predicted in (before, after):
        wrong = predicted != target
        found, number = (target[wrong] * width + predicted[wrong]).unique(return_counts=True)
        keys.append(found)
        counts.append(dict(zip(found.tolist(), number.tolist(), strict=True)))
    changes = [
        ConfusionChange(key // width, key % width, counts[0].get(key, 0), counts[1].get(key, 0))
        for key in torch.cat(keys).unique().tolist()
    ]
    changed = [change for change in changes if change.before != change.after]
    return sorted(changed, key=lambda c: (-abs(c.after - c.before), c.label, c.predicted))
