"""Bootstrap intervals: how far accuracies and AUSUC would move with another sample of test images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.accuracy import Average, criterion_scores, group_members, hit_table
from ftc.functional.outcomes import Outcomes
from ftc.partition import ClassPartition

Interval = tuple[float, float]

# Weights in memory at a time, so that replicates × samples never are at once.
BLOCK = 1 << 20


def check_bootstrap(replicates: int, confidence: float) -> None:
    """Refuse settings that give no interval.

    Raises:
        InputError: fewer than two replicates, or a confidence outside (0, 1).
    """
    if replicates < 2:
        raise InputError(f"replicates={replicates}: give at least 2, better 1000")
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence}: give a share between 0 and 1, such as 0.95")


def percentile_interval(values: Tensor, confidence: float) -> Interval:
    """The central interval that holds the share ``confidence`` of the replicates (B,), ``nan`` left out."""
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=values.dtype)
    low, high = values.nanquantile(tails).tolist()
    return low, high


def resampled_counts(size: int, replicates: int, seed: int) -> Iterator[Tensor]:
    """Yield how often each sample is drawn with replacement: float64 blocks (b, size), B rows in all."""
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, BLOCK // size)
    for start in range(0, replicates, rows):
        b = min(rows, replicates - start)
        drawn = torch.randint(size, (b, size), generator=generator)
        yield torch.zeros(b, size, dtype=torch.float64).scatter_add_(
            1, drawn, torch.ones(1, 1, dtype=torch.float64).expand(b, size)
        )


def bootstrap_accuracies(
    outcomes: Outcomes,
    partition: ClassPartition,
    gamma: float = 0.0,
    average: Average = "sample",
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals of every accuracy at a given γ, and of AUSUC.

    Samples are drawn with replacement from all evaluated ones, so group sizes vary as well. γ is held fixed;
    `ftc.calibrators.bootstrap_gamma` gives its own uncertainty.

    Args:
        outcomes: samples reduced by `reduce_logits`.
        partition: the partition that they were reduced with.
        gamma: γ in logits.
        average: accuracies as means over samples, or over classes.
        replicates: number B of replicates.
        seed: the same seed gives the same intervals.
        confidence: share of the replicates inside an interval.

    Returns:
        (low, high), fractions, by the names of `accuracies` and ``ausuc``; ``nan`` for a group without
        samples.

    Raises:
        InputError: see `check_bootstrap`.
    """
    check_bootstrap(replicates, confidence)
    outcomes = outcomes.cpu()
    members = group_members(outcomes, partition)
    table = list(hit_table(outcomes, partition, gamma))
    hit = outcomes.hit_at_1(partition)
    _, step = outcomes.margin.unique(return_inverse=True)
    blocks: dict[str, list[Tensor]] = {}
    for counts in resampled_counts(len(hit), replicates, seed):
        weights = {
            group: _normalised(counts[:, rows], outcomes.target[rows], average)
            for group, rows in members.items()
        }
        nothing = counts.new_full((len(counts),), torch.nan)
        values = {
            name: weights[group] @ hits.double() if len(hits) else nothing for name, group, hits in table
        }
        seen, absent = values["acc_seen"], values["acc_absent"]
        values.update(criterion_scores(seen, absent, values["acc_all"]))
        lost, gained = (
            _by_step(weights[group], hit[members[group]], step[members[group]], int(step.max()) + 1)
            for group in ("seen", "absent")
        )
        # A trapezoid: the seen hits lost at a margin, times the absent hits gained up to its middle.
        area = (lost * (gained.cumsum(1) - gained / 2)).sum(1)
        values["ausuc"] = torch.where((seen + absent).isnan(), torch.nan, area)
        for name, value in values.items():
            blocks.setdefault(name, []).append(value)
    return {name: percentile_interval(torch.cat(parts), confidence) for name, parts in blocks.items()}


def _normalised(counts: Tensor, target: Tensor, average: Average) -> Tensor:
    """Weights (b, n), each row of which sums to 1; ``nan`` where a replicate drew none of these samples."""
    if average == "sample":
        return counts / counts.sum(1, keepdim=True)
    classes, inverse = target.unique(return_inverse=True)
    drawn = torch.zeros(len(counts), len(classes), dtype=counts.dtype).index_add_(1, inverse, counts)
    present = (drawn > 0).sum(1, keepdim=True)
    return counts / (drawn.clamp(min=1)[:, inverse] * present)


def _by_step(weight: Tensor, hit: Tensor, step: Tensor, steps: int) -> Tensor:
    """Weights (b, n) of hits summed by the step (n,) of their margin: (b, steps)."""
    return weight.new_zeros(len(weight), steps).index_add_(1, step[hit], weight[:, hit])
