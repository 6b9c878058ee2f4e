"""The seen–absent curve in memory that does not grow with the number of samples."""

from __future__ import annotations

import math
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torchmetrics import Metric

from ftc.errors import InputError
from ftc.functional import SeenAbsentCurve
from ftc.functional.curve import assemble_curve
from ftc.functional.inputs import GROUP_CODES, label_groups
from ftc.functional.outcomes import reduce_logits
from ftc.partition import ClassPartition


@frozen(eq=False)
class BinnedCurve:
    """A curve that is exact at the edges of bins, with bounds of its error between them.

    Attributes:
        curve: its points with ``|γ| ≤ limit`` lie on edges, and are exact there.
        ausuc_error: the exact AUSUC lies within ± this of ``curve.ausuc``.
        acc_error: at any γ, Acc_{Y/Y} lies within ± this of ``curve.at(gamma)["acc_all"]``.
    """

    curve: SeenAbsentCurve
    ausuc_error: float
    acc_error: float


class BinnedSeenAbsentCurve(Metric):
    """`SeenAbsentCurve` from counts of hits by bin of their margin: integers, summed over ranks.

    Samples whose margins share a bin cannot be told apart. The curve moves monotonically through the box
    between a bin's two exact end points, so its area is off by at most half the boxes:
    ½ Σ Δacc_seen · Δacc_absent. It serves unlimited N; the exact state keeps up to 34 bytes a sample.

    Args:
        partition: seen, absent and other columns of the head.
        limit: the bins cover margins from −limit to +limit; margins beyond count in two outer bins.
        bins: number of bins, of equal width.

    Raises:
        InputError: a limit that is not positive, or no bin.
    """

    full_state_update = False
    edges: Tensor
    hits: Tensor
    samples: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(
        self, partition: ClassPartition, limit: float = 50.0, bins: int = 10_000, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not limit > 0 or bins < 1:
            raise InputError(f"limit={limit}, bins={bins}: give a positive limit and at least one bin")
        self.partition = partition
        self.register_buffer("edges", torch.linspace(-limit, limit, bins + 1, dtype=torch.float64))
        groups = len(GROUP_CODES)
        self.add_state("hits", torch.zeros(groups, bins + 2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros(groups, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("lowest", torch.tensor(torch.inf, dtype=torch.float64), dist_reduce_fx="min")
        self.add_state("highest", torch.tensor(-torch.inf, dtype=torch.float64), dist_reduce_fx="max")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add logits (N, C) and labels (N,)."""
        outcomes = reduce_logits(logits, target, self.partition)
        groups = label_groups(outcomes.target, self.partition)
        hit = outcomes.hit_at_1(self.partition)
        # Number of edges at or below a margin: margin ≥ edge i exactly when the bin is above i.
        bin_of = torch.searchsorted(self.edges, outcomes.margin, right=True)
        for row, code in enumerate(GROUP_CODES.values()):
            members = groups == code
            self.hits[row] += torch.bincount(bin_of[members & hit], minlength=self.hits.shape[1])
            self.samples[row] += members.sum()
        self.lowest = torch.minimum(self.lowest, outcomes.margin.min())
        self.highest = torch.maximum(self.highest, outcomes.margin.max())

    def compute(self) -> BinnedCurve:
        edges, hits, samples = self.edges.cpu(), self.hits.cpu(), self.samples.cpu()
        sizes = dict(zip(GROUP_CODES, samples.tolist(), strict=True))
        if self.partition.absent:
            first = min(float(self.lowest), float(edges[0]) - 1)
            last = max(float(self.highest), float(edges[-1]))
            margin = torch.cat([edges.new_tensor([first]), edges])
            gamma = torch.cat([edges.new_tensor([first - 1]), edges, edges.new_tensor([last + 1])])
        else:
            margin, gamma = edges[:0], edges.new_zeros(1)
        passed = hits.cumsum(1)[:, : len(margin)]
        curve = assemble_curve(gamma, margin, passed, hits.sum(1), sizes, sizes)
        return BinnedCurve(curve, *self._errors(hits, sizes))

    def _errors(self, hits: Tensor, sizes: dict[str, int]) -> tuple[float, float]:
        if not self.partition.absent:
            return 0.0, 0.0
        seen, absent, _ = (
            row.double() / (n or math.nan) for row, n in zip(hits, sizes.values(), strict=True)
        )
        widest = int(hits.sum(0).max())
        return float((seen * absent).sum()) / 2, widest / (sum(sizes.values()) or math.nan)
