"""How fine-tuning moves the rows of the head: the directions of their updates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import torch
from attrs import frozen
from torch import Tensor

# A matrix of more cells tells a reader no more.
MOST_CELLS = 100


@frozen(eq=False)
class UpdateCosines:
    """Cosines of the update vectors of the head's rows.

    Attributes:
        within_seen, within_absent: mean cosine over pairs of two seen, or of two absent classes.
        across: mean cosine over pairs of a seen and an absent class. Like those above ``nan`` without pairs.
        matrix: means over blocks of ``block`` consecutive classes each, float64 (B, B) with B ≤ 100: those of
            seen classes first, then those of absent ones. ``nan`` without a pair, as of a class with itself.
        seen_blocks: how many of the blocks are of seen classes.
        block: classes a block, 1 for heads of up to 100 classes; the last block of either group may be
            smaller.
    """

    within_seen: float
    within_absent: float
    across: float
    matrix: Tensor
    seen_blocks: int
    block: int


def update_cosines(
    source: Tensor, fine_tuned: Tensor, seen: Sequence[int], absent: Sequence[int]
) -> UpdateCosines:
    """Cosine similarities of the head's update vectors w_ft − w_src (the paper, on the head's updates).

    A row that did not move has no direction; it is in no mean. Time and memory grow linearly in the number of
    classes, since a mean over pairs is a product of sums.

    Args:
        source, fine_tuned: the rows of both heads, (C, D).
        seen, absent: the columns to compare, in the order of the matrix; others are left out.
    """
    update = fine_tuned.double() - source.double()
    # Short rows must not count as unmoved.
    update = update / update.abs().amax(1, keepdim=True)
    unit = update / update.norm(dim=1, keepdim=True)
    groups = [unit[list(columns)] for columns in (seen, absent)]
    size = next(b for b in count(1) if sum(-(-len(rows) // b) for rows in groups) <= MOST_CELLS)
    parts = [part for rows in groups for part in rows.split(size) if len(part)]
    means = _pair_means(groups)
    return UpdateCosines(
        within_seen=float(means[0, 0]),
        within_absent=float(means[1, 1]),
        across=float(means[0, 1]),
        matrix=_pair_means(parts),
        seen_blocks=-(-len(seen) // size),
        block=size,
    )


def _pair_means(groups: Sequence[Tensor]) -> Tensor:
    """Mean cosines between groups of unit rows, and on the diagonal over the pairs inside each.

    Args:
        groups: G times rows (n, D), those of ``nan`` left out.

    Returns:
        Float64 (G, G); ``nan`` where there is no pair.
    """
    kept = [rows[~rows.isnan().any(1)] for rows in groups]
    sums = torch.stack([rows.sum(0) for rows in kept])
    sizes = torch.tensor([len(rows) for rows in kept], dtype=torch.float64, device=sums.device)
    dots = sums @ sums.T
    means = dots / torch.outer(sizes, sizes)
    inside = (dots.diagonal() - sizes) / (sizes * (sizes - 1)).where(sizes > 1, torch.nan)
    return means.diagonal_scatter(inside)
