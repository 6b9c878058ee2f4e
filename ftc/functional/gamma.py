"""The arithmetic of γ estimators (PROTOCOL: "Estimating γ without absent-class target data")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.outcomes import SEEN, check_logits, check_target, columns, label_groups
from ftc.partition import ClassPartition


def logit_gap(logits: Any, target: Any, partition: ClassPartition) -> Tensor:
    """Mean of z over S \\ {y} minus mean of z over U, float64 (N,), of samples of seen classes.

    Raises:
        InputError: a sample that is not of a seen class, no absent class, or a single seen class (S \\ {y}
            would be empty).
    """
    z = check_logits(logits, partition).double()
    y = check_target(target, z, partition)
    if len(partition.seen) < 2 or not partition.absent:
        raise InputError(
            "the average logit gap needs two seen classes and one absent class, "
            f"the partition has {len(partition.seen)} and {len(partition.absent)}; use another calibrator"
        )
    strange = label_groups(y, partition) != SEEN
    if bool(strange.any()):
        row = int(strange.nonzero()[0])
        raise InputError(f"label {int(y[row])} of row {row} is not a seen class; keep seen samples only")
    seen = z[:, columns(partition, "seen", z.device)]
    rivals = seen.sum(1) - z.gather(1, y[:, None])[:, 0]
    absent = z[:, columns(partition, "absent", z.device)]
    return rivals / (len(partition.seen) - 1) - absent.mean(1)


def average_logit_gap(logits: Any, target: Any, partition: ClassPartition) -> float:
    """γ of ALG in logits: the mean `logit_gap` over seen target training samples (N, C), (N,).

    >>> p = ClassPartition(num_classes=3, seen=[0, 1], absent=[2])
    >>> average_logit_gap(torch.tensor([[4.0, 1.0, 0.5], [2.0, 3.0, 0.5]]), [0, 1], p)
    1.0
    """
    return float(logit_gap(logits, target, partition).mean())


def matching_quantile(margin: Tensor, fraction: float) -> float:
    """γ that sends that fraction of samples with these margins (N,) to the absent classes.

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
