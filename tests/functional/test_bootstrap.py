"""Bootstrap intervals against a plain loop over resampled outcomes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ftc import ClassPartition, InputError
from ftc.functional import accuracies, bootstrap_accuracies, curve_of_outcomes, reduce_logits
from ftc.functional.bootstrap import resampled_counts
from tests.conftest import random_logits
from tests.functional.test_curve import cases


def plain(outcomes, partition, gamma, average, replicates, seed, confidence):
    """Every replicate as an evaluation of its own, of samples repeated as often as they were drawn."""
    values: dict[str, list[float]] = {}
    for counts in resampled_counts(len(outcomes.target), replicates, seed):
        for row in counts.long():
            drawn = outcomes.rows(torch.arange(len(row)).repeat_interleave(row))
            found = accuracies(drawn, partition, gamma, average)
            found["ausuc"] = curve_of_outcomes(drawn, partition, average).ausuc
            for name, value in found.items():
                values.setdefault(name, []).append(value)
    tails = (0.5 - confidence / 2, 0.5 + confidence / 2)
    return {name: interval(np.array(found), tails) for name, found in values.items()}


def interval(values: np.ndarray, tails: tuple[float, float]) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    low, high = np.quantile(defined, tails) if len(defined) else (math.nan, math.nan)
    return float(low), float(high)


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, bounds in expected.items():
        assert found[name] == pytest.approx(bounds, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("average", ["sample", "class"])
@pytest.mark.parametrize("gamma", [0.0, 0.8])
def test_intervals_equal_a_plain_loop(partition, monkeypatch, average, gamma):
    monkeypatch.setattr("ftc.functional.bootstrap.BLOCK", 3_000)
    outcomes = reduce_logits(*random_logits(partition, 120), partition, (1, 3))
    arguments = (outcomes, partition, gamma, average, 60, 7, 0.9)
    assert_same(bootstrap_accuracies(*arguments), plain(*arguments))


@settings(max_examples=100)
@given(cases())
def test_intervals_of_few_samples_equal_a_plain_loop(case):
    partition, logits, target = case
    outcomes = reduce_logits(logits, target, partition)
    for average in ("sample", "class"):
        arguments = (outcomes, partition, 0.25, average, 12, 0, 0.8)
        assert_same(bootstrap_accuracies(*arguments), plain(*arguments))


@pytest.mark.parametrize("block", [1, 700, 1 << 20])
def test_every_replicate_draws_as_many_samples(monkeypatch, block):
    monkeypatch.setattr("ftc.functional.bootstrap.BLOCK", block)
    counts = torch.cat(list(resampled_counts(100, 41, seed=3)))
    assert counts.shape == (41, 100)
    assert (counts.sum(1) == 100).all()


def test_seeds_repeat_and_differ(partition):
    outcomes = reduce_logits(*random_logits(partition), partition)
    first, again, other = (bootstrap_accuracies(outcomes, partition, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("average", ["sample", "class"])
def test_interval_brackets_the_estimate_and_narrows_with_samples(partition, average):
    widths = []
    for size in (200, 3200):
        outcomes = reduce_logits(*random_logits(partition, size), partition)
        found = bootstrap_accuracies(outcomes, partition, 0.5, average, 400)
        estimate = accuracies(outcomes, partition, 0.5, average)
        estimate["ausuc"] = curve_of_outcomes(outcomes, partition, average).ausuc
        assert all(found[name][0] < value < found[name][1] for name, value in estimate.items())
        widths.append(found["acc_all"][1] - found["acc_all"][0])
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


def test_width_is_the_binomial_one(partition):
    outcomes = reduce_logits(*random_logits(partition, 2000), partition)
    low, high = bootstrap_accuracies(outcomes, partition, replicates=2000)["acc_all"]
    share = accuracies(outcomes, partition)["acc_all"]
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / 2000), rel=0.1)


def test_group_without_samples_has_no_interval():
    partition = ClassPartition(3, [0, 1], [2])
    outcomes = reduce_logits(torch.randn(30, 3), [0, 1] * 15, partition)
    found = bootstrap_accuracies(outcomes, partition, replicates=20)
    for name in ("acc_absent", "acc_absent_within", "harmonic", "ausuc"):
        assert all(map(math.isnan, found[name])), name
    assert all(map(math.isfinite, found["acc_seen"]))


@pytest.mark.parametrize(
    ("replicates", "confidence", "message"),
    [(1, 0.95, "replicates=1"), (100, 0.0, "confidence=0.0"), (100, 95.0, r"confidence=95\.0")],
)
def test_what_gives_no_interval_is_refused(partition, replicates, confidence, message):
    outcomes = reduce_logits(*random_logits(partition, 5), partition)
    with pytest.raises(InputError, match=message):
        bootstrap_accuracies(outcomes, partition, replicates=replicates, confidence=confidence)
