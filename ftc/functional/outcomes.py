"""The reduction everything rests on: a row of C logits becomes a few numbers.

With them every accuracy at every γ is known, so logits need not be kept (PROTOCOL: "the seen–absent curve").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from ftc.errors import InputError
from ftc.partition import ClassPartition, Group

OTHERS, SEEN, ABSENT = 0, 1, 2


@lru_cache(maxsize=256)
def columns(partition: ClassPartition, group: Group, device: torch.device) -> Tensor:
    """Column ids of a group, int64, on a device."""
    return torch.tensor(partition.columns(group), dtype=torch.int64, device=device)


@lru_cache(maxsize=64)
def _group_table(partition: ClassPartition, device: torch.device) -> Tensor:
    table = torch.full((partition.num_classes,), OTHERS, dtype=torch.int8)
    table[list(partition.seen)] = SEEN
    table[list(partition.absent)] = ABSENT
    return table.to(device)


def label_groups(target: Tensor, partition: ClassPartition) -> Tensor:
    """Group of every label: `OTHERS`, `SEEN` or `ABSENT`; int8 (N,)."""
    return _group_table(partition, target.device)[target.long()]


def check_logits(logits: Any, partition: ClassPartition) -> Tensor:
    """Logits as a floating tensor (N, C), at least float32.

    Raises:
        InputError: not two-dimensional, the wrong width, no rows, or a value that is not finite.
    """
    logits = torch.as_tensor(logits)
    if logits.ndim != 2 or logits.shape[1] != partition.num_classes:
        raise InputError(
            f"logits have shape {tuple(logits.shape)}; the partition asks for (N, {partition.num_classes})"
        )
    if logits.shape[0] == 0:
        raise InputError("logits are empty; give at least one sample")
    if not logits.is_floating_point():
        raise InputError(f"logits have dtype {logits.dtype}; give floating-point logits, not predictions")
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    finite = torch.isfinite(logits).all(dim=1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise InputError(f"logits of row {row} are not finite; drop the row or mend what produced it")
    return logits


def check_target(target: Any, logits: Tensor, partition: ClassPartition) -> Tensor:
    """Labels as int64 (N,) on the logits' device.

    Raises:
        InputError: the wrong shape, or a label outside the head.
    """
    target = torch.as_tensor(target).to(logits.device)
    if target.shape != logits.shape[:1] or target.is_floating_point():
        raise InputError(
            f"target has shape {tuple(target.shape)} and dtype {target.dtype}; "
            f"give one integer column id a sample, ({logits.shape[0]},)"
        )
    target = target.long()
    outside = (target < 0) | (target >= partition.num_classes)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise InputError(
            f"label {int(target[row])} of row {row} is outside the head of {partition.num_classes} columns; "
            "map labels to head columns first"
        )
    return target


# attrs, not dataclasses: torchmetrics takes dataclasses apart and squeezes their one-element tensors.
@frozen(eq=False)
class Outcomes:
    """What is kept of each sample.

    Attributes:
        margin: max_F z − max_U z, float64 (N,); +inf where the partition has no absent class.
        threshold: float64 (N, K), one a k. A label in F is in the top k exactly when γ ≤ threshold, a label
            in U exactly when γ > threshold; ±inf where γ does not matter.
        within: bool (N, K), the label is in the top k of its own group's columns (S or U).
        target: int64 (N,), head columns.
        top_k: the K values of k, ascending, the first being 1.
    """

    margin: Tensor
    threshold: Tensor
    within: Tensor
    target: Tensor
    top_k: tuple[int, ...] = (1,)

    def hit_at_1(self, partition: ClassPartition) -> Tensor:
        """hit_fixed for labels in F, hit_absent for labels in U; bool (N,)."""
        absent = label_groups(self.target, partition) == ABSENT
        first = self.threshold[:, 0]
        return torch.where(absent, first < torch.inf, first > -torch.inf)


def margins(logits: Any, partition: ClassPartition) -> Tensor:
    """max_F z − max_U z, float64 (N,). A sample is sent to U exactly when γ > margin."""
    z = check_logits(logits, partition).double()
    if not partition.absent:
        return torch.full((z.shape[0],), torch.inf, dtype=torch.float64, device=z.device)
    top_fixed = z[:, columns(partition, "fixed", z.device)].amax(dim=1)
    return top_fixed - z[:, columns(partition, "absent", z.device)].amax(dim=1)


def reduce_logits(
    logits: Any, target: Any, partition: ClassPartition, top_k: Sequence[int] = (1,)
) -> Outcomes:
    """Reduce logits (N, C) and labels (N,) to `Outcomes`.

    Ties inside a group go to the lowest column, ties between the groups to the fixed one.

    Raises:
        InputError: see `check_logits` and `check_target`; k below 1, or 1 not among them.
    """
    ks = tuple(sorted(set(top_k)))
    if not ks or ks[0] != 1:
        raise InputError(f"top_k={list(top_k)}: 1 must be among them and none below it")
    z = check_logits(logits, partition).double()
    y = check_target(target, z, partition)
    groups = label_groups(y, partition)
    is_absent = groups == ABSENT

    z_y = z.gather(1, y[:, None])
    ids = torch.arange(partition.num_classes, device=z.device)
    ahead = (z > z_y) | ((z == z_y) & (ids < y[:, None]))
    ahead_in_absent = ahead[:, columns(partition, "absent", z.device)].sum(1)
    ahead_in_seen = ahead[:, columns(partition, "seen", z.device)].sum(1)
    rank = torch.where(is_absent, ahead_in_absent, ahead.sum(1) - ahead_in_absent)
    rank_within = torch.where(is_absent, ahead_in_absent, ahead_in_seen)
    within_group = groups != OTHERS

    rival_of_fixed = _largest(z, columns(partition, "absent", z.device), ks[-1])
    rival_of_absent = _largest(z, columns(partition, "fixed", z.device), ks[-1])
    thresholds, within = [], []
    for k in ks:
        j = k - rank
        fixed = z_y[:, 0] - _jth(rival_of_fixed, j)
        absent = _jth(rival_of_absent, j) - z_y[:, 0]
        thresholds.append(torch.where(is_absent, absent, fixed))
        within.append(within_group & (rank_within < k))
    margin = rival_of_absent[:, 0] - rival_of_fixed[:, 0]
    return Outcomes(margin, torch.stack(thresholds, 1), torch.stack(within, 1), y, ks)


def _largest(z: Tensor, group: Tensor, k: int) -> Tensor:
    """The k largest logits of a group in descending order (N, k), filled up with −inf."""
    taken = min(k, len(group))
    top = z[:, group].topk(taken, dim=1).values
    return torch.nn.functional.pad(top, (0, k - taken), value=-torch.inf)


def _jth(descending: Tensor, j: Tensor) -> Tensor:
    """X_(j) for each row (N,); +inf (a rival nobody overtakes) where j < 1."""
    value = descending.gather(1, (j - 1).clamp(min=0)[:, None])[:, 0]
    return torch.where(j < 1, torch.inf, value)
