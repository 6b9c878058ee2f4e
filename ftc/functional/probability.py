"""Probabilities softmax((z + γ·1_U) / T) of a model with γ, and how far they are from what happens.

Softmax does not change when a constant is added to all logits. Five numbers of a sample, each relative to the
largest logit of its group, and the margin therefore give its probabilities of interest at every γ
(docs/definitions.md, "Probabilities").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.accuracy import group_members
from ftc.functional.inputs import ABSENT, as_logits, check_finite, check_target, columns, label_groups
from ftc.functional.outcomes import BLOCK, Outcomes, blocks
from ftc.partition import ClassPartition

# Bins of equal mass; their number is that of Guo et al., ICML 2017, arXiv 1706.04599.
BINS = 15


# attrs, not dataclasses: torchmetrics takes dataclasses apart and squeezes their one-element tensors.
@frozen(eq=False)
class LogitSums:
    """What the probabilities of each sample need beside its `Outcomes`, at one temperature T.

    Attributes:
        sum_fixed: Σ_F exp((z − max_F z) / T), (N,), at least 1.
        sum_absent: the same over U; 0 where the partition has no absent class.
        squares_fixed: Σ_F exp(2 (z − max_F z) / T), (N,).
        squares_absent: the same over U.
        own: (z_y − max z) / T over the label's own group, F or U; (N,), at most 0.
        temperature: T.
    """

    sum_fixed: Tensor
    sum_absent: Tensor
    squares_fixed: Tensor
    squares_absent: Tensor
    own: Tensor
    temperature: float = 1.0

    def cpu(self) -> LogitSums:
        """The sums on the CPU."""
        sums = (self.sum_fixed.cpu(), self.sum_absent.cpu())
        squares = (self.squares_fixed.cpu(), self.squares_absent.cpu())
        return LogitSums(*sums, *squares, self.own.cpu(), self.temperature)


@frozen(eq=False)
class SampleScores:
    """How good the probabilities of each sample are, at one γ and T.

    Attributes:
        nll: −ln p_y in nats, float64 (N,).
        brier: Σ_c (p_c − [c = y])², float64 (N,), between 0 and 2.
        confidence: max_c p_c, float64 (N,).
        hit: argmax_c p_c = y by the routing rule, bool (N,).
    """

    nll: Tensor
    brier: Tensor
    confidence: Tensor
    hit: Tensor


@frozen(eq=False)
class ReliabilityBins:
    """A reliability diagram of bins of equal mass.

    Attributes:
        confidence: mean confidence of each bin, float64 (bins,), ascending.
        accuracy: share of hits in each bin, float64 (bins,).
        num_samples: N, of which each bin has the same share, N / bins.
    """

    confidence: Tensor
    accuracy: Tensor
    num_samples: int

    @property
    def ece(self) -> float:
        """The expected calibration error: the mean gap between confidence and accuracy, a fraction."""
        return float((self.confidence - self.accuracy).abs().mean())


def logit_sums(logits: Any, target: Any, partition: ClassPartition, temperature: float = 1.0) -> LogitSums:
    """Reduce logits (N, C) and labels (N,), tensors on any device or arrays, to `LogitSums` of their dtype.

    Works through blocks of rows: beside its result it needs a few MiB, whatever N is.

    Raises:
        InputError: see `as_logits`, `check_finite` and `check_target`; a temperature that is not positive.
    """
    z, y = _checked(logits, target, partition, temperature)
    is_absent = label_groups(y, partition) == ABSENT
    names = ("sum_fixed", "sum_absent", "squares_fixed", "squares_absent", "own")
    found = {name: z.new_zeros(len(z)) for name in names}
    for rows in blocks(z):
        tops = {}
        for group in ("fixed", "absent"):
            of_group = z[rows].index_select(1, columns(partition, group, z.device))
            if not of_group.shape[1]:
                tops[group] = of_group.new_full((len(of_group),), -torch.inf)
                continue
            tops[group] = of_group.amax(1)
            of_group.sub_(tops[group][:, None]).div_(temperature).exp_()
            torch.sum(of_group, 1, out=found[f"sum_{group}"][rows])
            torch.sum(of_group.square_(), 1, out=found[f"squares_{group}"][rows])
        own = z[rows].gather(1, y[rows, None])[:, 0]
        found["own"][rows] = (own - torch.where(is_absent[rows], tops["absent"], tops["fixed"])) / temperature
    return LogitSums(**found, temperature=temperature)


def sample_scores(
    sums: LogitSums, outcomes: Outcomes, partition: ClassPartition, gamma: float = 0.0
) -> SampleScores:
    """The scores of every sample at γ.

    Args:
        sums: samples reduced by `logit_sums`.
        outcomes: the same samples reduced by `reduce_logits`; temperatures do not change them.
        partition: the partition that they were reduced with.
        gamma: γ in logits, added to every absent column before the division by T.
    """
    is_absent = label_groups(outcomes.target, partition) == ABSENT
    lead = (gamma - outcomes.margin) / sums.temperature
    # The group that leads has weight 1, the other one less: nothing overflows, whatever γ is.
    log_fixed, log_absent = -lead.clamp(min=0), lead.clamp(max=0)
    of_fixed, of_absent = log_fixed.exp(), log_absent.exp()
    total = of_fixed * sums.sum_fixed + of_absent * sums.sum_absent
    squares = of_fixed.square() * sums.squares_fixed + of_absent.square() * sums.squares_absent
    log_own = sums.own + torch.where(is_absent, log_absent, log_fixed)
    first = outcomes.threshold[:, 0]
    return SampleScores(
        nll=total.log() - log_own,
        brier=squares / total.square() - 2 * log_own.exp() / total + 1,
        confidence=1 / total,
        hit=torch.where(is_absent, gamma > first, gamma <= first),
    )


def probability_metrics(
    sums: LogitSums, outcomes: Outcomes, partition: ClassPartition, gamma: float = 0.0
) -> dict[str, float]:
    """Metrics of probabilities at γ, by name (docs/definitions.md, "Probabilities").

    Args:
        sums, outcomes, partition, gamma: see `sample_scores`.

    Returns:
        ``nll`` in nats, ``brier``, ``ece`` and ``confidence``, each with ``_all``, ``_seen`` and ``_absent``
        for the samples that it is the mean over; ``nan`` for a group without samples.
    """
    scores = sample_scores(sums, outcomes, partition, gamma)
    result = {}
    for group, rows in group_members(outcomes, partition).items():
        # The mean of no number is nan.
        for name in ("nll", "brier", "confidence"):
            result[f"{name}_{group}"] = float(getattr(scores, name)[rows].mean())
        some = bool(rows.any())
        bins = reliability(scores.confidence[rows], scores.hit[rows]) if some else None
        result[f"ece_{group}"] = math.nan if bins is None else bins.ece
    return result


def reliability_by_group(
    sums: LogitSums, outcomes: Outcomes, partition: ClassPartition, gamma: float = 0.0
) -> Mapping[str, ReliabilityBins]:
    """The reliability diagrams of ``all``, ``seen`` and ``absent`` samples; none for a group without any."""
    scores = sample_scores(sums, outcomes, partition, gamma)
    return {
        group: reliability(scores.confidence[rows], scores.hit[rows])
        for group, rows in group_members(outcomes, partition).items()
        if bool(rows.any())
    }


def reliability(confidence: Tensor, hit: Tensor, bins: int = BINS) -> ReliabilityBins:
    """The reliability diagram of top-label confidences (N,) and hits (N,), by bins of equal mass.

    Each bin has N / bins samples, see `equal_mass_means` for ties and few samples. torchmetrics has bins of
    equal width only, of which a confident model leaves most empty (Nixon et al., CVPR workshops 2019, arXiv
    1904.01685).

    >>> hit = torch.tensor([True, False, True, True])
    >>> round(reliability(torch.tensor([0.5, 0.6, 0.9, 0.8]), hit, bins=2).ece, 3)
    0.1
    """
    means = equal_mass_means(confidence.double()[None], hit.double()[None], bins)
    return ReliabilityBins(means[0][0], means[1][0], len(confidence))


def equal_mass_means(score: Tensor, outcome: Tensor, bins: int = BINS) -> tuple[Tensor, Tensor]:
    """Means of scores and outcomes in bins of equal mass, by ascending score.

    A sample that lies across an edge counts in both bins, in proportion. Samples of equal score share their
    outcomes, so that the order of the samples changes nothing. Fewer samples than bins each fill several
    bins: the mean gap over the bins is then that over the samples.

    Args:
        score: float64 (R, N), each row on its own.
        outcome: float64 (R, N).
        bins: number of bins.

    Returns:
        Means of the scores and of the outcomes, float64 (R, bins) each.
    """
    score, order = score.contiguous().sort(-1)
    size = score.shape[-1]
    edges = torch.arange(1, bins, dtype=torch.float64, device=score.device) * size / bins
    at = score[:, edges.long()]
    first, last = torch.searchsorted(score, at), torch.searchsorted(score, at, right=True)
    within = (edges - first) / (last - first)

    def means(values: Tensor) -> Tensor:
        sums = torch.nn.functional.pad(values.cumsum(-1), (1, 0))
        inner = torch.lerp(sums.gather(-1, first), sums.gather(-1, last), within)
        return torch.cat([sums[:, :1], inner, sums[:, -1:]], -1).diff(dim=-1) * bins / size

    return means(score), means(outcome.gather(-1, order))


def classwise_ece(
    logits: Any,
    target: Any,
    partition: ClassPartition,
    gamma: float = 0.0,
    temperature: float = 1.0,
    bins: int = BINS,
) -> float:
    """The class-wise expected calibration error at γ and T, a fraction.

    For each class the gap between p_c and [y = c], over all samples, in bins of equal mass; the mean over
    classes (Kull et al., NeurIPS 2019, arXiv 1910.12656, who have bins of equal width; Nixon et al., arXiv
    1904.01685, have equal mass). The mean runs over the columns that occur as labels: columns that nobody
    asks for would only dilute it.

    Args:
        logits: (N, C); they are worked through in blocks of rows and of columns.
        target: labels (N,).
        partition: seen, absent and other columns.
        gamma: γ in logits.
        temperature: T.
        bins: number of bins.

    Raises:
        InputError: see `as_logits`, `check_finite` and `check_target`; a temperature that is not positive.
    """
    z, y = _checked(logits, target, partition, temperature)
    total = torch.cat([scaled(z[rows], partition, gamma, temperature).logsumexp(1) for rows in blocks(z)])
    shift = gamma * in_absent(partition, z.device)
    gaps = []
    for of_block in y.unique().split(max(1, BLOCK // len(z))):
        own = (z[:, of_block].double() + shift[of_block]) / temperature
        found = equal_mass_means((own - total[:, None]).exp().T, (y == of_block[:, None]).double(), bins)
        gaps.append((found[0] - found[1]).abs().mean(1))
    return float(torch.cat(gaps).mean())


def _checked(
    logits: Any, target: Any, partition: ClassPartition, temperature: float
) -> tuple[Tensor, Tensor]:
    """Logits (N, C) and labels (N,) as tensors, both checked, and so is T."""
    check_temperature(temperature)
    z = as_logits(logits, partition)
    y = check_target(target, z, partition)
    check_finite(z)
    return z, y


def scaled(z: Tensor, partition: ClassPartition, gamma: float, temperature: float = 1.0) -> Tensor:
    """(z + γ·1_U) / T of logits (N, C), float64."""
    return (z.double() + gamma * in_absent(partition, z.device)) / temperature


def in_absent(partition: ClassPartition, device: torch.device) -> Tensor:
    """1_U: one in the absent columns and zero elsewhere, float64 (C,)."""
    mask = torch.zeros(partition.num_classes, dtype=torch.float64, device=device)
    return mask.index_fill_(0, columns(partition, "absent", device), 1.0)


def check_temperature(temperature: float) -> None:
    """Refuse temperatures that are not positive and finite.

    Raises:
        InputError: names the value.
    """
    if not 0 < temperature < math.inf:
        raise InputError(f"temperature={temperature}: give a positive number")
