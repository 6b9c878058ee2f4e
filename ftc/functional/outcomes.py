"""Logits reduced to what is kept of a sample: a margin, a label, and one threshold a k.

Everything the curve and the accuracies need once γ is known follows from these, so logits need not be kept
(PROTOCOL: "the seen–absent curve").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from ftc.errors import InputError
from ftc.partition import ClassPartition, Group

OTHERS, SEEN, ABSENT = 0, 1, 2
GROUP_CODES = {"seen": SEEN, "absent": ABSENT, "others": OTHERS}

# Logits worked on at a time: few enough for a processor's cache, enough to make the calls per block cheap.
BLOCK = 1 << 20


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


@lru_cache(maxsize=256)
def _mask(partition: ClassPartition, group: Group, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 on the group's columns, −inf elsewhere, (C,): added to logits it leaves the group's alone."""
    mask = torch.full((partition.num_classes,), -torch.inf, dtype=dtype)
    mask[list(partition.columns(group))] = 0
    return mask.to(device)


def label_groups(target: Tensor, partition: ClassPartition) -> Tensor:
    """Group of every label: `OTHERS`, `SEEN` or `ABSENT`; int8 (N,)."""
    return _group_table(partition, target.device)[target.long()]


def as_logits(logits: Any, partition: ClassPartition) -> Tensor:
    """Logits as a floating tensor (N, C), at least float32. Their values are not looked at.

    Raises:
        InputError: not two-dimensional, the wrong width, no rows, or no floating-point numbers.
    """
    logits = as_tensor(logits)
    if logits.ndim != 2 or logits.shape[1] != partition.num_classes:
        raise InputError(
            f"logits have shape {tuple(logits.shape)}; the partition asks for (N, {partition.num_classes})"
        )
    if logits.shape[0] == 0:
        raise InputError("logits are empty; give at least one sample")
    if not logits.is_floating_point():
        raise InputError(f"logits have dtype {logits.dtype}; give floating-point logits, not predictions")
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def as_tensor(values: Any) -> Tensor:
    """A tensor of anything array-like, on whatever device it is."""
    # torch warns of memory it must not write to, as arrays of other frameworks have it.
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values).detach()


def check_finite(logits: Tensor, totals: Tensor | None = None) -> None:
    """Refuse values that are not finite.

    Args:
        logits: (N, C).
        totals: their sums over columns (N,), where the caller has them.

    Raises:
        InputError: names the first offending row.
    """
    totals = logits.sum(1) if totals is None else totals
    # A sum is not finite where a value is not; it may also overflow, hence the second look.
    for row in (~torch.isfinite(totals)).nonzero()[:, 0].tolist():
        if not bool(torch.isfinite(logits[row]).all()):
            raise InputError(f"logits of row {row} are not finite; drop the row or mend what produced it")


def check_target(target: Any, logits: Tensor, partition: ClassPartition) -> Tensor:
    """Labels as int64 (N,) on the logits' device.

    Raises:
        InputError: the wrong shape, or a label outside the head.
    """
    target = as_tensor(target).to(logits.device)
    if target.shape != logits.shape[:1] or target.is_floating_point() or target.dtype == torch.bool:
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

    def cpu(self) -> Outcomes:
        """The same on the CPU."""
        moved = (self.margin.cpu(), self.threshold.cpu(), self.within.cpu(), self.target.cpu())
        return Outcomes(*moved, self.top_k)

    def rows(self, keep: Tensor) -> Outcomes:
        """The outcomes of some samples: a mask (N,) or indices."""
        kept = (self.margin[keep], self.threshold[keep], self.within[keep], self.target[keep])
        return Outcomes(*kept, self.top_k)


def routes(logits: Any, partition: ClassPartition) -> tuple[Tensor, Tensor]:
    """Margins max_F z − max_U z, float64 (N,), and the leading absent columns argmax_U z, int64 (N,).

    A sample is sent to U exactly when γ > margin.

    Raises:
        InputError: see `as_logits` and `check_finite`.
    """
    z = as_logits(logits, partition)
    work, totals = _workspace(z), z.new_empty(len(z))
    margin = z.new_empty(len(z), dtype=torch.float64)
    top_absent = z.new_empty(len(z), dtype=torch.int64)
    for rows in _blocks(z):
        torch.sum(z[rows], 1, out=totals[rows])
        fixed = _masked(z[rows], partition, "fixed", work).amax(1).double()
        absent, top_absent[rows] = _masked(z[rows], partition, "absent", work).max(1)
        margin[rows] = fixed - absent.double()
    check_finite(z, totals)
    return margin, top_absent


def reduce_logits(
    logits: Any, target: Any, partition: ClassPartition, top_k: Sequence[int] = (1,)
) -> Outcomes:
    """Reduce logits (N, C) and labels (N,), tensors on any device or arrays, to `Outcomes`.

    Ties inside a group go to the lowest column, ties between the groups to the fixed one. Works through
    blocks of rows: beside its result it needs a few MiB, whatever N is.

    Raises:
        InputError: see `as_logits`, `check_finite` and `check_target`; k below 1, or 1 not among them.
    """
    ks = tuple(sorted(set(top_k)))
    if not ks or ks[0] != 1:
        raise InputError(f"top_k={list(top_k)}: 1 must be among them and none below it")
    z = as_logits(logits, partition)
    y = check_target(target, z, partition)
    groups = label_groups(y, partition)
    is_absent = groups == ABSENT
    work, totals = _workspace(z), z.new_empty(len(z))
    outcomes = Outcomes(
        margin=z.new_empty(len(z), dtype=torch.float64),
        threshold=z.new_empty(len(z), len(ks), dtype=torch.float64),
        within=z.new_empty(len(z), len(ks), dtype=torch.bool),
        target=y,
        top_k=ks,
    )
    reduce_block = _reduce_top_1 if ks == (1,) else _reduce_top_k
    for rows in _blocks(z):
        torch.sum(z[rows], 1, out=totals[rows])
        margin, threshold, within = reduce_block(z[rows], y[rows], is_absent[rows], partition, ks, work)
        outcomes.margin[rows] = margin
        outcomes.threshold[rows] = threshold
        outcomes.within[rows] = within
    check_finite(z, totals)
    if partition.others:
        outcomes.within[groups == OTHERS] = False
    return outcomes


Block = tuple[Tensor, Tensor, Tensor]


def _reduce_top_1(
    z: Tensor, y: Tensor, is_absent: Tensor, partition: ClassPartition, ks: tuple[int, ...], work: Tensor
) -> Block:
    """Margin, threshold and within of a block from largest logits alone: no argmax, no sort."""
    own = y[:, None]
    z_y = z.gather(1, own)[:, 0]
    rivals: dict[Group, Tensor] = {}
    groups: tuple[Group, ...] = ("fixed", "absent", "seen") if partition.others else ("fixed", "absent")
    for group in groups:
        # The label's own column aside, wherever it is: what is left is its strongest rival.
        rivals[group] = _masked(z, partition, group, work).scatter_(1, own, -torch.inf).amax(1)
    rivals.setdefault("seen", rivals["fixed"])
    top_fixed = torch.where(is_absent, rivals["fixed"], rivals["fixed"].maximum(z_y)).double()
    top_absent = torch.where(is_absent, rivals["absent"].maximum(z_y), rivals["absent"]).double()
    hit = _beats(z, y, z_y, torch.where(is_absent, rivals["absent"], rivals["fixed"]), is_absent, partition)
    within = hit
    if partition.others:
        rival = torch.where(is_absent, rivals["absent"], rivals["seen"])
        within = _beats(z, y, z_y, rival, is_absent, partition, "seen")
    margin = top_fixed - top_absent
    never = torch.where(is_absent, torch.inf, -torch.inf).to(margin)
    return margin, torch.where(hit, margin, never)[:, None], within[:, None]


def _beats(
    z: Tensor,
    y: Tensor,
    z_y: Tensor,
    rival: Tensor,
    is_absent: Tensor,
    partition: ClassPartition,
    fixed: Group = "fixed",
) -> Tensor:
    """Whether the label's logit leads its own group's columns, bool (N,); ties go to the lowest column."""
    ties = (rival == z_y).nonzero()[:, 0]
    leads = z_y > rival
    if len(ties):
        ids = torch.arange(partition.num_classes, device=z.device)
        lower = (z[ties] == z_y[ties, None]) & (ids < y[ties, None])
        own = torch.where(
            is_absent[ties, None],
            _mask(partition, "absent", z.dtype, z.device) == 0,
            _mask(partition, fixed, z.dtype, z.device) == 0,
        )
        leads[ties] = ~(lower & own).any(1)
    return leads


def _reduce_top_k(
    z: Tensor, y: Tensor, is_absent: Tensor, partition: ClassPartition, ks: tuple[int, ...], work: Tensor
) -> Block:
    """Margin, thresholds and within of a block from the ranks of the labels and the largest logits."""
    z_y = z.gather(1, y[:, None])
    ids = torch.arange(partition.num_classes, device=z.device)
    ahead = (z > z_y) | ((z == z_y) & (ids < y[:, None]))
    ahead_in: dict[Group, Tensor] = {}
    groups: tuple[Group, ...] = ("fixed", "absent", "seen")
    for group in groups:
        ahead_in[group] = (ahead & (_mask(partition, group, z.dtype, z.device) == 0)).sum(1)
    rank = torch.where(is_absent, ahead_in["absent"], ahead_in["fixed"])
    rank_within = torch.where(is_absent, ahead_in["absent"], ahead_in["seen"])

    deepest = min(ks[-1], partition.num_classes)
    fixed = _masked(z, partition, "fixed", work).topk(deepest, dim=1).values.double()
    absent = _masked(z, partition, "absent", work).topk(deepest, dim=1).values.double()
    thresholds = []
    for k in ks:
        j = k - rank
        of_fixed = z_y[:, 0].double() - _jth(absent, j)
        of_absent = _jth(fixed, j) - z_y[:, 0].double()
        thresholds.append(torch.where(is_absent, of_absent, of_fixed))
    within = torch.stack([rank_within < k for k in ks], 1)
    return fixed[:, 0] - absent[:, 0], torch.stack(thresholds, 1), within


def _jth(descending: Tensor, j: Tensor) -> Tensor:
    """X_(j) for each row (N,): +inf (a rival nobody overtakes) where j < 1, −inf beyond the columns."""
    value = descending.gather(1, (j - 1).clamp(0, descending.shape[1] - 1)[:, None])[:, 0]
    value = torch.where(j > descending.shape[1], -torch.inf, value)
    return torch.where(j < 1, torch.inf, value)


def _blocks(z: Tensor) -> Iterator[slice]:
    size = max(1, BLOCK // z.shape[1])
    for start in range(0, len(z), size):
        yield slice(start, min(start + size, len(z)))


def _workspace(z: Tensor) -> Tensor:
    """Room for one block, used again and again."""
    return torch.empty(min(len(z), max(1, BLOCK // z.shape[1])), z.shape[1], dtype=z.dtype, device=z.device)


def _masked(z: Tensor, partition: ClassPartition, group: Group, work: Tensor) -> Tensor:
    """A block of logits (N, C) with −inf outside a group, in the workspace."""
    return torch.add(z, _mask(partition, group, z.dtype, z.device), out=work[: len(z)])
