"""Streaming logit scales and their histograms."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torchmetrics import Metric

from ftc.functional.inputs import label_groups
from ftc.functional.scale import SAMPLE_GROUPS, name_scales, scale_terms
from ftc.partition import ClassPartition

HISTOGRAM_TERMS = ("ground_truth", "seen_max", "absent_max")
_STATS = ("mean", "max", "rival")


@frozen(eq=False)
class ScaleSummary:
    """Scales by name (logits), and histograms by name: counts, int64 (B,), between edges (B + 1,)."""

    scales: dict[str, float]
    histograms: dict[str, Tensor]
    edges: Tensor


class LogitScale(Metric):
    """`ftc.functional.logit_scale` of streamed logits, with histograms on fixed bins.

    Fixed bins keep the histograms of different epochs comparable; values beyond count in the end bins.

    Args:
        partition: seen, absent and other columns of the head.
        limit: the bins cover −limit to +limit logits.
        bins: number of bins.
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor
    histograms: Tensor

    def __init__(
        self, partition: ClassPartition, limit: float = 50.0, bins: int = 200, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.partition = partition
        self.limit = limit
        self.bins = bins
        self.terms: list[str] = ["ground_truth", *(f"{g}_{s}" for g in ("seen", "absent") for s in _STATS)]
        groups = len(SAMPLE_GROUPS)
        zeros = torch.zeros(groups, len(self.terms), dtype=torch.float64)
        self.add_state("sums", default=zeros, dist_reduce_fx="sum")
        self.add_state("counts", default=torch.zeros(groups, dtype=torch.int64), dist_reduce_fx="sum")
        bins_of = torch.zeros(groups, len(HISTOGRAM_TERMS), bins, dtype=torch.int64)
        self.add_state("histograms", default=bins_of, dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add logits (N, C) and labels (N,)."""
        terms = scale_terms(logits, target, self.partition)
        groups = label_groups(target, self.partition)
        values = torch.stack([terms[name] for name in self.terms])
        for row, (_, code) in enumerate(SAMPLE_GROUPS):
            members = groups == code
            self.sums[row] += values[:, members].sum(1)
            self.counts[row] += members.sum()
            for column, name in enumerate(HISTOGRAM_TERMS):
                value = terms[name][members].nan_to_num(0.0).clamp(-self.limit, self.limit)
                bin_of = ((value + self.limit) * (self.bins / (2 * self.limit))).long()
                counts = torch.bincount(bin_of.clamp(max=self.bins - 1), minlength=self.bins)
                self.histograms[row, column] += counts

    def compute(self) -> ScaleSummary:
        names = [name for name, _ in SAMPLE_GROUPS]
        sums = {name: (self.sums[i], int(self.counts[i])) for i, name in enumerate(names)}
        histograms = {
            f"logit_{term}_on_{name}": self.histograms[i, j].cpu()
            for i, name in enumerate(names)
            for j, term in enumerate(HISTOGRAM_TERMS)
            if term != "absent_max" or self.partition.absent
        }
        edges = torch.linspace(-self.limit, self.limit, self.bins + 1, dtype=torch.float64)
        return ScaleSummary(name_scales(self.terms, sums), histograms, edges)
