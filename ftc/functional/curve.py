"""The exact seen–absent curve over γ and the area under it.

See docs/definitions.md, "The seen–absent curve and AUSUC".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.accuracy import Average, Criterion, check_criterion, criterion_scores
from ftc.functional.inputs import ABSENT, GROUP_CODES, label_groups
from ftc.functional.outcomes import Outcomes, reduce_logits
from ftc.partition import ClassPartition


@frozen(eq=False)
class SeenAbsentCurve:
    """Every accuracy that some γ can reach: one point for each step between distinct margins.

    Attributes:
        gamma: float64 (K,), ascending: the middle of each step's interval, ±1 beyond the outermost margins.
        acc_seen: Acc_{S/Y}(γ), float64 (K,), fractions, never rising; ``nan`` without seen samples.
        acc_absent: Acc_{U/Y}(γ), never falling; ``nan`` without absent samples.
        acc_all: Acc_{Y/Y}(γ), samples labelled with an `others` column included.
        margin: float64 (K − 1,), the distinct margins where the steps meet.
        num_samples: number of samples by group of the label: ``seen``, ``absent`` and ``others``.
    """

    gamma: Tensor
    acc_seen: Tensor
    acc_absent: Tensor
    acc_all: Tensor
    margin: Tensor
    num_samples: dict[str, int]

    @property
    def ausuc(self) -> float:
        """Area under Acc_{U/Y} against Acc_{S/Y}, a fraction; ``nan`` where a group has no samples."""
        width = self.acc_seen[:-1] - self.acc_seen[1:]
        height = (self.acc_absent[:-1] + self.acc_absent[1:]) / 2
        return float((width * height).sum()) if len(self.gamma) > 1 else math.nan

    def at(self, gamma: float) -> dict[str, float]:
        """Accuracies at γ (logits), fractions. A margin equal to γ counts as fixed."""
        step = int(torch.searchsorted(self.margin, torch.tensor(float(gamma), dtype=torch.float64)))
        seen, absent, everything = self.acc_seen[step], self.acc_absent[step], self.acc_all[step]
        scores = criterion_scores(seen, absent, everything)
        rates = {"acc_seen": seen, "acc_absent": absent, **scores}
        return {name: float(rate) for name, rate in rates.items()}

    def best(self, criterion: Criterion = "acc_all", absent_floor: float = 0.0) -> float:
        """γ of the best step, of several the one with the smallest ``|γ|``. On evaluated labels it is γ*.

        Args:
            criterion: the score to maximise, see `criterion_scores`.
            absent_floor: the least Acc_{U/Y} of a step that may be chosen; ignored where no step has it.

        Raises:
            InputError: an unknown criterion, or one that needs samples that the curve does not have.
        """
        check_criterion(criterion)
        score = criterion_scores(self.acc_seen, self.acc_absent, self.acc_all)[criterion]
        if bool(score.isnan().any()):
            raise InputError(f"criterion={criterion!r} needs both seen and absent samples; use acc_all")
        admitted = self.acc_absent >= absent_floor
        if bool(admitted.any()):
            score = torch.where(admitted, score, -torch.inf)
        ties = (score == score.max()).nonzero()[:, 0]
        return float(self.gamma[ties[self.gamma[ties].abs().argmin()]])

    def thin(self, points: int) -> SeenAbsentCurve:
        """At most that many evenly spaced points, both ends kept: for drawing only, never for numbers."""
        if len(self.gamma) <= points:
            return self
        keep = torch.linspace(0, len(self.gamma) - 1, points).round().long()
        return SeenAbsentCurve(
            self.gamma[keep],
            self.acc_seen[keep],
            self.acc_absent[keep],
            self.acc_all[keep],
            self.margin,
            self.num_samples,
        )


def curve_of_outcomes(
    outcomes: Outcomes, partition: ClassPartition, average: Average = "sample"
) -> SeenAbsentCurve:
    """The curve of `Outcomes`: one sort and three cumulative sums, on the CPU."""
    target = outcomes.target.cpu()
    groups = label_groups(target, partition)
    hit = outcomes.hit_at_1(partition).cpu()
    num_samples = group_sizes(groups)
    if average == "sample":
        weight, sizes = hit.long(), num_samples
    else:
        counts = torch.bincount(target, minlength=partition.num_classes)
        weight = hit / counts[target].double()
        present = label_groups(counts.nonzero()[:, 0], partition)
        sizes = group_sizes(present)
    margin, order = outcomes.margin.cpu().sort()
    # Equal margins are one step: it ends at the last of them. Without absent classes γ moves nothing.
    ends = torch.full((len(margin),), bool(partition.absent))
    if partition.absent:
        torch.ne(margin[1:], margin[:-1], out=ends[:-1])
    passed = (weight * _members(groups))[:, order].cumsum(1)
    return assemble_curve(
        _middles(margin[ends]),
        margin[ends],
        passed=passed[:, ends],
        # Summed in the order of the margins, so that the order of the samples does not change the number.
        hits=passed[:, -1:].sum(1),
        sizes=sizes,
        num_samples=num_samples,
    )


def assemble_curve(
    gamma: Tensor,
    margin: Tensor,
    passed: Tensor,
    hits: Tensor,
    sizes: Mapping[str, int],
    num_samples: dict[str, int],
) -> SeenAbsentCurve:
    """The curve from sums of hits: absent ones are gained as γ passes their margins, the others are lost.

    Args:
        gamma: γ of the steps, (K,).
        margin: margins where the steps meet, (K − 1,).
        passed: hits (or their weights) with a margin at or below each of these, (groups, K − 1), in the order
            of `GROUP_CODES`.
        hits: all hits (or their weights), (groups,).
        sizes: divisor of the hits, by group.
        num_samples: number of samples, by group.
    """
    gone = torch.nn.functional.pad(passed, (1, 0))
    is_absent = torch.tensor([[code == ABSENT] for code in GROUP_CODES.values()])
    numerator = torch.where(is_absent, gone, hits[:, None] - gone)
    seen, absent, _ = (
        row.double() / (size or math.nan) for row, size in zip(numerator, sizes.values(), strict=True)
    )
    everything = numerator.sum(0).double() / (sum(sizes.values()) or math.nan)
    return SeenAbsentCurve(gamma, seen, absent, everything, margin, num_samples)


def _members(groups: Tensor) -> Tensor:
    """Masks of the groups' samples, bool (groups, N), in the order of `GROUP_CODES`."""
    return groups == groups.new_tensor(list(GROUP_CODES.values()))[:, None]


def group_sizes(groups: Tensor) -> dict[str, int]:
    """The number of labels in each group, from their `label_groups`."""
    return dict(zip(GROUP_CODES, _members(groups).sum(1).tolist(), strict=True))


def _middles(edges: Tensor) -> Tensor:
    """A γ inside each half-open step (below, above]."""
    if len(edges) == 0:
        return torch.zeros(1, dtype=torch.float64)
    middle = edges[:-1] + (edges[1:] - edges[:-1]) / 2
    # Between neighbouring floats the middle rounds down onto a margin that belongs to the step before.
    middle = torch.where(middle > edges[:-1], middle, edges[1:])
    # Where margins are huge, adding 1 changes nothing.
    beyond = torch.maximum(edges[-1:] + 1, edges[-1:].nextafter(edges.new_tensor(torch.inf)))
    return torch.cat([edges[:1] - 1, middle, beyond])


def seen_absent_curve(
    logits: Any, target: Any, partition: ClassPartition, average: Average = "sample"
) -> SeenAbsentCurve:
    """The exact curve of logits (N, C) and labels (N,), tensors or arrays.

    Ties between a fixed and an absent column go to the fixed one. Samples labelled with an `others` column
    count in ``acc_all`` only; ``num_samples`` counts them.

    Raises:
        InputError: names the first offending row, see `ftc.functional.reduce_logits`.

    >>> p = ClassPartition(num_classes=3, seen=[0, 1], absent=[2])
    >>> z = torch.tensor([[3.0, 0.0, 1.0], [2.0, 0.0, 1.0]])
    >>> curve = seen_absent_curve(z, [0, 2], p)
    >>> curve.gamma.tolist(), curve.acc_all.tolist(), curve.best(), curve.ausuc
    ([0.0, 1.5, 3.0], [0.5, 1.0, 0.5], 1.5, 1.0)
    """
    return curve_of_outcomes(reduce_logits(logits, target, partition), partition, average)
