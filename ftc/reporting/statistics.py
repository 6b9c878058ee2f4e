"""Statistics over runs: spread, bootstrap intervals of means, and sign-flip tests of paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import fmean, stdev

import numpy as np
from attrs import frozen

# Differences up to whose number all signs are tried, and how many random ones take their place beyond.
_ALL_SIGNS = 14
_RANDOM_SIGNS = 20_000


@frozen
class Replication:
    """A number over partitions and training seeds, which are kept apart.

    Attributes:
        mean: the mean over partitions of their means over training seeds.
        std: standard deviation of the latter (ddof = 1), over training seeds where there is one partition
            only; None where there is one value only.
        seed_std: standard deviation over training seeds inside a partition (ddof = 1), pooled; None where no
            partition has two seeds.
        partitions: the number of partitions.
        runs: the number of runs.
        units: what ``std`` is taken over: means of partitions, or runs of one partition.
    """

    mean: float
    std: float | None
    seed_std: float | None
    partitions: int
    runs: int
    units: tuple[float, ...]


def replication(values: Mapping[str, Sequence[float]]) -> Replication:
    """Mean and spread of a number.

    Args:
        values: its values, one a training seed, by partition; at least one.
    """
    means = [fmean(of_seeds) for of_seeds in values.values()]
    repeated = [of_seeds for of_seeds in values.values() if len(of_seeds) > 1]
    free = sum(len(of_seeds) - 1 for of_seeds in repeated)
    pooled = sum((len(of_seeds) - 1) * stdev(of_seeds) ** 2 for of_seeds in repeated)
    units = means if len(means) > 1 else next(iter(values.values()))
    return Replication(
        mean=fmean(means),
        std=stdev(units) if len(units) > 1 else None,
        seed_std=(pooled / free) ** 0.5 if free else None,
        partitions=len(means),
        runs=sum(map(len, values.values())),
        units=tuple(units),
    )


# Calibrators repeat the numbers that γ does not move.
@lru_cache(maxsize=1024)
def bootstrap_mean(
    values: tuple[float, ...], replicates: int, confidence: float, seed: int
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean of independent values; None for fewer than two.

    With few values it is too narrow.
    """
    if len(values) < 2 or not replicates:
        return None
    means = np.asarray(values, dtype=np.float64)[_drawn(len(values), replicates, seed)].mean(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=4)
def _drawn(count: int, replicates: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, (replicates, count))


def sign_flip(differences: Sequence[float], seed: int = 0) -> float | None:
    """Two-sided p-value of paired differences: the share of sign patterns whose mean is as far from zero.

    All 2ⁿ patterns up to n = 14, beyond that 20,000 random ones and the observed one. The smallest possible
    value is 2^(1 − n), so that fewer than six differences never reach 0.05. None where there is no difference
    to test.
    """
    given = np.asarray(differences, dtype=np.float64)
    count = len(given)
    if not count:
        return None
    if count <= _ALL_SIGNS:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    else:
        drawn = np.random.default_rng(seed).integers(0, 2, (_RANDOM_SIGNS, count))
        signs = np.concatenate([np.ones((1, count), int), 1 - 2 * drawn])
    sums = np.abs(signs @ given)
    # Equal sums differ in their last digits.
    return float((sums >= abs(given.sum()) - 1e-12 * max(1.0, np.abs(given).sum())).mean())
