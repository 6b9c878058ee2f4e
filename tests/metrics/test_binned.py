"""The binned curve against the exact one: equal at the edges, as near as it says in between."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftc import ClassPartition, InputError
from ftc.functional import seen_absent_curve
from ftc.metrics import BinnedSeenAbsentCurve
from tests.conftest import random_logits
from tests.functional.test_curve import cases, same
from tests.metrics.test_metrics import PIECES

NAMES = ("acc_all", "acc_seen", "acc_absent")


def binned(partition, logits, target, limit=2.0, bins=16):
    metric = BinnedSeenAbsentCurve(partition, limit, bins)
    metric.update(torch.as_tensor(logits), torch.as_tensor(target))
    return metric


def assert_holds(metric, exact, gammas):
    """Exact at every edge; within the stated errors at these γ and in area."""
    found = metric.compute()
    for edge in metric.edges.tolist():
        ours, theirs = found.curve.at(edge), exact.at(edge)
        assert all(same(ours[name], theirs[name]) for name in NAMES), edge
    for gamma in gammas:
        difference = abs(found.curve.at(gamma)["acc_all"] - exact.at(gamma)["acc_all"])
        assert difference <= found.acc_error + 1e-12, gamma
    if math.isnan(exact.ausuc):
        assert math.isnan(found.curve.ausuc)
    else:
        assert abs(found.curve.ausuc - exact.ausuc) <= found.ausuc_error + 1e-12
    assert found.curve.num_samples == exact.num_samples
    assert found.curve.gamma.tolist() == sorted(found.curve.gamma.tolist())
    for i, gamma in enumerate(found.curve.gamma.tolist()):
        at = found.curve.at(gamma)
        assert all(same(at[name], float(getattr(found.curve, name)[i])) for name in NAMES)


@settings(max_examples=300)
@given(
    cases(),
    st.sampled_from([0.5, 1.0, 2.0, 5.0]),
    st.integers(1, 16),
    st.lists(st.floats(-6, 6), min_size=5, max_size=5),
)
def test_bounds_hold_with_margins_on_edges_and_beyond_the_limit(case, limit, bins, gammas):
    partition, logits, target = case
    exact = seen_absent_curve(logits, target, partition)
    assert_holds(binned(partition, logits, target, limit, bins), exact, gammas)


@pytest.mark.parametrize("scale", [0.2, 1.0, 30.0])
def test_bounds_hold_on_many_random_sets(partition, scale):
    for seed in range(60):
        logits, target = random_logits(partition, 80, seed)
        exact = seen_absent_curve(scale * logits, target, partition)
        gammas = torch.linspace(-3, 3, 25).mul(scale).tolist()
        assert_holds(binned(partition, scale * logits, target), exact, gammas)


def test_fine_bins_come_close(partition):
    logits, target = random_logits(partition, 2000)
    exact = seen_absent_curve(logits, target, partition)
    found = binned(partition, logits, target, limit=10.0, bins=20_000).compute()
    assert found.ausuc_error < 1e-4
    assert found.acc_error < 0.01
    assert found.curve.ausuc == pytest.approx(exact.ausuc, abs=1e-4)
    gamma = found.curve.best()
    assert exact.at(gamma)["acc_all"] == pytest.approx(exact.at(exact.best())["acc_all"], abs=0.005)


def test_streamed_in_pieces_equals_the_whole(partition):
    logits, target = random_logits(partition, 200)
    pieces = BinnedSeenAbsentCurve(partition, 2.0, 50)
    for z, y in zip(logits.split(PIECES), target.split(PIECES), strict=True):
        pieces.update(z, y)
    found, whole = pieces.compute(), binned(partition, logits, target, bins=50).compute()
    for name in ("gamma", "margin", *NAMES):
        assert torch.equal(getattr(found.curve, name), getattr(whole.curve, name))
    assert (found.ausuc_error, found.acc_error) == (whole.ausuc_error, whole.acc_error)


def test_state_does_not_grow_with_samples(partition):
    metric = BinnedSeenAbsentCurve(partition, bins=100)
    sizes = []
    for size in (10, 1000):
        metric.update(*random_logits(partition, size))
        sizes.append(sum(getattr(metric, name).numel() for name in metric._defaults))
    assert sizes[0] == sizes[1]


def test_without_absent_classes_the_curve_is_one_exact_point():
    partition = ClassPartition(3, [0, 1])
    logits, target = torch.randn(20, 3), torch.arange(20) % 3
    found = binned(partition, logits, target).compute()
    exact = seen_absent_curve(logits, target, partition)
    assert (found.ausuc_error, found.acc_error) == (0.0, 0.0)
    assert found.curve.gamma.tolist() == exact.gamma.tolist() == [0.0]
    assert torch.equal(found.curve.acc_all, exact.acc_all)


@pytest.mark.parametrize(("limit", "bins"), [(0.0, 10), (-1.0, 10), (math.nan, 10), (1.0, 0)])
def test_bins_that_are_none(partition, limit, bins):
    with pytest.raises(InputError, match="positive limit and at least one bin"):
        BinnedSeenAbsentCurve(partition, limit, bins)
