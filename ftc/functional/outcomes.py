"""Logits reduced to the numbers kept of a sample: margin, label, and for each k a threshold and a hit.

The curve and the accuracies at every γ follow from these, so logits need not be kept
(docs/definitions.md, "The seen–absent curve and AUSUC").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.inputs import ABSENT, OTHERS, as_logits, check_finite, check_target, label_groups
from ftc.partition import ClassPartition, Group

# Logits reduced at a time: few enough for a processor's cache, enough to make the calls per block cheap.
BLOCK = 1 << 20


@lru_cache(maxsize=256)
def _mask(partition: ClassPartition, group: Group, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 on the group's columns, −inf elsewhere, (C,): added to logits it leaves the group's alone."""
    mask = torch.full((partition.num_classes,), -torch.inf, dtype=dtype)
    mask[list(partition.columns(group))] = 0
    return mask.to(device)


# attrs, not dataclasses: torchmetrics takes dataclasses apart and squeezes their one-element tensors.
@frozen(eq=False)
class Outcomes:
    """The numbers kept of each sample.

    Attributes:
        margin: max_F z − max_U z, float64 (N,); +inf where the partition has no absent class.
        threshold: float64 (N, K), one for each k. A label in F is in the top k exactly when γ ≤ threshold, a
            label in U exactly when γ > threshold; ±inf where γ does not matter.
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
        """The outcomes on the CPU."""
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
    for rows in blocks(z):
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
    for rows in blocks(z):
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
        # Without the label's own column, the largest logit of a group is the label's strongest rival there.
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


def blocks(z: Tensor) -> Iterator[slice]:
    """Yield the rows of logits (N, C) that are worked on at a time."""
    size = max(1, BLOCK // z.shape[1])
    for start in range(0, len(z), size):
        yield slice(start, min(start + size, len(z)))


def _workspace(z: Tensor) -> Tensor:
    """Memory for one block, reused by every block."""
    return torch.empty(min(len(z), max(1, BLOCK // z.shape[1])), z.shape[1], dtype=z.dtype, device=z.device)


def _masked(z: Tensor, partition: ClassPartition, group: Group, work: Tensor) -> Tensor:
    """A block of logits (N, C) with −inf outside a group, in the workspace."""
    return torch.add(z, _mask(partition, group, z.dtype, z.device), out=work[: len(z)])
