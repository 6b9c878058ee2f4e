"""The exact seen–absent curve over γ and the area under it (PROTOCOL: "The seen–absent curve and AUSUC")."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from attrs import frozen
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.accuracy import Average, class_weights, harmonic_mean
from ftc.functional.outcomes import ABSENT, SEEN, Outcomes, label_groups, reduce_logits
from ftc.partition import ClassPartition

Criterion = Literal["acc_all", "harmonic", "balanced"]


@frozen(eq=False)
class SeenAbsentCurve:
    """Every accuracy that some γ can reach, one point a step between distinct margins.

    Attributes:
        gamma: float64 (K,), ascending: the middle of each step's interval, ±1 beyond the outermost margins.
        acc_seen: Acc_{S/Y}(γ), float64 (K,), fractions, never rising; ``nan`` without seen samples.
        acc_absent: Acc_{U/Y}(γ), never falling; ``nan`` without absent samples.
        acc_all: Acc_{Y/Y}(γ), samples labelled with an `others` column included.
        margin: float64 (K − 1,), the distinct margins where the steps meet.
    """

    gamma: Tensor
    acc_seen: Tensor
    acc_absent: Tensor
    acc_all: Tensor
    margin: Tensor

    @property
    def ausuc(self) -> float:
        """Area under Acc_{U/Y} against Acc_{S/Y}, a fraction; ``nan`` where a group has no samples."""
        width = self.acc_seen[:-1] - self.acc_seen[1:]
        height = (self.acc_absent[:-1] + self.acc_absent[1:]) / 2
        return float((width * height).sum()) if len(self.gamma) > 1 else math.nan

    def at(self, gamma: float) -> dict[str, float]:
        """Accuracies at γ (logits), fractions. A margin equal to γ counts as fixed."""
        step = int(torch.searchsorted(self.margin, torch.tensor(float(gamma), dtype=torch.float64)))
        seen, absent = float(self.acc_seen[step]), float(self.acc_absent[step])
        return {
            "acc_all": float(self.acc_all[step]),
            "acc_seen": seen,
            "acc_absent": absent,
            "harmonic": harmonic_mean(seen, absent),
        }

    def best(self, criterion: Criterion = "acc_all") -> float:
        """γ of the best step; of several, the one of smallest |γ|. On absent-class labels this is the oracle.

        Args:
            criterion: Acc_{Y/Y}, the harmonic mean of S/Y and U/Y, or their plain mean (``balanced``).

        Raises:
            InputError: an unknown criterion, or one that needs samples the curve does not have.
        """
        if criterion == "acc_all":
            score = self.acc_all
        elif criterion == "harmonic":
            total = self.acc_seen + self.acc_absent
            score = torch.where(total > 0, 2 * self.acc_seen * self.acc_absent / total, 0.0 * total)
        elif criterion == "balanced":
            score = (self.acc_seen + self.acc_absent) / 2
        else:
            raise InputError(f"criterion={criterion!r}: choose from acc_all, harmonic, balanced")
        if bool(score.isnan().any()):
            raise InputError(f"criterion={criterion!r} needs both seen and absent samples; use acc_all")
        ties = (score == score.max()).nonzero()[:, 0]
        return float(self.gamma[ties[self.gamma[ties].abs().argmin()]])

    def thin(self, points: int) -> SeenAbsentCurve:
        """At most that many evenly spaced points, both ends kept: for drawing only, never for numbers."""
        if len(self.gamma) <= points:
            return self
        keep = torch.linspace(0, len(self.gamma) - 1, points).round().long()
        return SeenAbsentCurve(
            self.gamma[keep], self.acc_seen[keep], self.acc_absent[keep], self.acc_all[keep], self.margin
        )


def curve_of_outcomes(
    outcomes: Outcomes, partition: ClassPartition, average: Average = "sample"
) -> SeenAbsentCurve:
    """The curve of `Outcomes`: one sort and two cumulative sums, on the CPU."""
    target = outcomes.target.cpu()
    groups = label_groups(target, partition)
    hit = outcomes.hit_at_1(partition).cpu()
    margin = outcomes.margin.cpu()
    if partition.absent:
        edges, position = margin.unique(return_inverse=True)
    else:
        edges, position = margin.new_empty(0), torch.zeros(len(margin), dtype=torch.int64)
    steps = len(edges) + 1

    def sums(rows: Tensor, weight: Tensor) -> Tensor:
        return torch.zeros(steps, dtype=weight.dtype).index_add_(0, position[rows], weight[rows])

    def curve(members: Tensor) -> Tensor:
        """Accuracy of the members at each step: fixed hits with a margin ≥ γ, absent ones below it."""
        if not bool(members.any()):
            return torch.full((steps,), math.nan, dtype=torch.float64)
        fixed, absent = members & hit & (groups != ABSENT), members & hit & (groups == ABSENT)
        if average == "sample":
            weight, total = torch.ones(len(target), dtype=torch.int64), int(members.sum())
        else:
            weight, total = torch.zeros(len(target), dtype=torch.float64), 1
            weight[members] = class_weights(target[members])
        kept = sums(fixed, weight).flip(0).cumsum(0).flip(0)
        gained = sums(absent, weight).cumsum(0).roll(1)
        gained[0] = 0
        return (kept + gained).double() / total

    return SeenAbsentCurve(
        gamma=_middles(edges),
        acc_seen=curve(groups == SEEN),
        acc_absent=curve(groups == ABSENT),
        acc_all=curve(torch.ones_like(hit)),
        margin=edges,
    )


def _middles(edges: Tensor) -> Tensor:
    """A γ inside each half-open step (below, above]."""
    if len(edges) == 0:
        return torch.zeros(1, dtype=torch.float64)
    middle = edges[:-1] + (edges[1:] - edges[:-1]) / 2
    # Between neighbouring floats the middle rounds down onto a margin that belongs to the step before.
    middle = torch.where(middle > edges[:-1], middle, edges[1:])
    return torch.cat([edges[:1] - 1, middle, edges[-1:] + 1])


def seen_absent_curve(
    logits: Any, target: Any, partition: ClassPartition, average: Average = "sample"
) -> SeenAbsentCurve:
    """The exact curve of logits (N, C) and labels (N,), tensors or arrays.

    Ties between a fixed and an absent column go to the fixed one. Samples labelled with an `others` column
    count in ``acc_all`` only.

    >>> p = ClassPartition(num_classes=3, seen=[0, 1], absent=[2])
    >>> z = torch.tensor([[3.0, 0.0, 1.0], [2.0, 0.0, 1.0]])
    >>> curve = seen_absent_curve(z, [0, 2], p)
    >>> curve.gamma.tolist(), curve.acc_all.tolist(), curve.best(), curve.ausuc
    ([0.0, 1.5, 3.0], [0.5, 1.0, 0.5], 1.5, 1.0)
    """
    return curve_of_outcomes(reduce_logits(logits, target, partition), partition, average)
