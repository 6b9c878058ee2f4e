"""The arithmetic of γ estimators (docs/definitions.md, "Estimators of γ")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.inputs import SEEN, as_logits, check_finite, check_target, columns, label_groups
from ftc.partition import ClassPartition


def non_target_gap(logits: Tensor, target: Tensor, partition: ClassPartition) -> Tensor:
    """Mean of z over S \\ {y} minus mean over U \\ {y}, float64 (N,); ``nan`` where one has no column."""
    z = logits.double()
    means = []
    for group in (columns(partition, "seen", z.device), columns(partition, "absent", z.device)):
        own = group == target[:, None]
        means.append(z[:, group].masked_fill(own, 0.0).sum(1) / (len(group) - own.sum(1)))
    return means[0] - means[1]


def logit_gap(logits: Any, target: Any, partition: ClassPartition) -> Tensor:
    """Mean of z over S \\ {y} minus mean of z over U, float64 (N,), of samples of seen classes.

    Raises:
        InputError: a sample that is not of a seen class, no absent class, or a single seen class (S \\ {y}
            would be empty).
    """
    z = as_logits(logits, partition)
    y = check_target(target, z, partition)
    check_finite(z)
    check_gap(partition)
    check_seen(y, partition)
    return non_target_gap(z, y, partition)


def check_seen(target: Tensor, partition: ClassPartition) -> None:
    """Refuse labels (N,) that are not seen classes.

    Raises:
        InputError: names the first offending row.
    """
    strange = label_groups(target, partition) != SEEN
    if bool(strange.any()):
        row = int(strange.nonzero()[0])
        raise InputError(f"label {int(target[row])} of row {row} is not a seen class; keep seen samples only")


def check_gap(partition: ClassPartition) -> None:
    """Refuse partitions without a logit gap.

    Raises:
        InputError: fewer than two seen classes, or no absent class.
    """
    if len(partition.seen) < 2 or not partition.absent:
        raise InputError(
            "the average logit gap needs two seen classes and one absent class, "
            f"the partition has {len(partition.seen)} and {len(partition.absent)}; use another calibrator"
        )


def average_logit_gap(logits: Any, target: Any, partition: ClassPartition) -> float:
    """γ of ALG in logits: the mean `logit_gap` over seen target training samples (N, C), (N,).

    >>> p = ClassPartition(num_classes=3, seen=[0, 1], absent=[2])
    >>> average_logit_gap(torch.tensor([[4.0, 1.0, 0.5], [2.0, 3.0, 0.5]]), [0, 1], p)
    1.0
    """
    return float(logit_gap(logits, target, partition).mean())


def matching_quantile(margin: Tensor, fraction: float) -> float:
    """γ that sends this fraction of the samples with margins (N,) to the absent classes.

    It is the quantile of the margins, linear between order statistics.

    Raises:
        InputError: no samples, or a fraction outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"fraction={fraction}: give a share between 0 and 1")
    if len(margin) == 0:
        raise InputError("no margins to take a quantile of; give at least one sample")
    ordered = margin.double().sort().values
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return float(torch.lerp(ordered[below], ordered[above], position - below))


def is_no_worse(hit: Tensor, reference: Tensor, tolerance: float) -> bool:
    """Whether a model is no worse than another on the same samples, as far as these can tell.

    Args:
        hit, reference: whether each model is right, bool (N,).
        tolerance: the accuracy that may be lost, a fraction; one standard error of the difference may be
            lost as well, where that is more.
    """
    lost = reference.double() - hit.double()
    error = float(lost.std()) / len(lost) ** 0.5 if len(lost) > 1 else 0.0
    # The loss of a single sample is one standard error, whichever way both are rounded.
    return float(lost.mean()) <= max(tolerance, error) * (1 + 1e-9)
