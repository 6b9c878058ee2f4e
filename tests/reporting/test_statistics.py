"""Statistics over runs against brute force."""

from __future__ import annotations

import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftc.reporting.statistics import bootstrap_mean, replication, sign_flip

numbers = st.floats(-100, 100, allow_subnormal=False)


@given(st.lists(numbers, min_size=1, max_size=9))
def test_p_is_the_share_of_sign_patterns_as_far_from_zero(differences):
    observed = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    # Rounding decides between sums that are equal on paper.
    near = 1e-12 * max(1.0, sum(map(abs, differences)))
    assert sign_flip(differences) == statistics.fmean(s >= observed - near for s in sums)


def test_p_of_many_differences_is_drawn_and_never_zero():
    assert sign_flip([1.0] * 40) == pytest.approx(1 / 20_001)
    assert sign_flip([1.0, -1.0] * 20) == 1.0
    assert sign_flip([]) is None


def test_three_differences_cannot_be_significant():
    assert sign_flip([5.0, 6.0, 7.0]) == 0.25


@given(
    st.dictionaries(st.text(max_size=2), st.lists(numbers, min_size=1, max_size=4), min_size=1, max_size=4)
)
def test_partitions_weigh_the_same_however_many_seeds_they_have(values):
    found = replication(values)
    means = [statistics.fmean(seeds) for seeds in values.values()]
    assert found.mean == pytest.approx(statistics.fmean(means))
    assert (found.partitions, found.runs) == (len(values), sum(map(len, values.values())))
    units = means if len(means) > 1 else next(iter(values.values()))
    expected = statistics.stdev(units) if len(units) > 1 else None
    assert found.std == (None if expected is None else pytest.approx(expected))
    repeated = [seeds for seeds in values.values() if len(seeds) > 1]
    if repeated:
        squares = sum((v - statistics.fmean(seeds)) ** 2 for seeds in repeated for v in seeds)
        free = sum(len(seeds) - 1 for seeds in repeated)
        assert found.seed_std == pytest.approx((squares / free) ** 0.5, abs=1e-9)
    else:
        assert found.seed_std is None


def test_bootstrap_interval_of_a_mean():
    values = tuple(float(v) for v in range(100))
    low, high = bootstrap_mean(values, 4000, 0.95, seed=0)
    error = statistics.stdev(values) / 10
    assert low == pytest.approx(49.5 - 1.96 * error, abs=0.5)
    assert high == pytest.approx(49.5 + 1.96 * error, abs=0.5)
    assert bootstrap_mean((1.0,), 100, 0.95, seed=0) is None
    assert bootstrap_mean(values, 0, 0.95, seed=0) is None
