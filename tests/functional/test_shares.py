"""EM shares against plain loops, an independent implementation and pools whose shares are known."""

from __future__ import annotations

import math
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftc import InputError
from ftc.functional import class_shares, outcomes

SEEDS = st.integers(0, 10**6)


def random_case(seed: int, size: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that lean to some classes, float64 (size, classes), and a prior (classes,)."""
    generator = torch.Generator().manual_seed(seed)
    offset = torch.randn(1, classes, generator=generator)
    row = torch.randn(size, classes, generator=generator)
    prior = torch.rand(classes, generator=generator).double() + 0.1
    return (offset + 2 * row).double(), prior / prior.sum()


def by_loops(logits, prior, steps):
    shares = list(prior)
    for _ in range(steps):
        sums = [0.0] * len(prior)
        for row in logits:
            total = sum(map(math.exp, row))
            mass = [math.exp(z) / total * shares[c] / prior[c] for c, z in enumerate(row)]
            sums = [have + m / sum(mass) for have, m in zip(sums, mass, strict=True)]
        shares = [value / len(logits) for value in sums]
    return shares


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 5), st.booleans(), st.integers(0, 6))
def test_shares_equal_plain_loops(seed, classes, uniform, steps):
    logits, prior = random_case(seed, 9, classes)
    if uniform:
        prior = torch.full((classes,), 1 / classes).double()
    found = class_shares(logits, None if uniform else prior, steps, tolerance=0.0)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(by_loops(logits.tolist(), prior.tolist(), steps))
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_shares_equal_those_of_quapy(seed, monkeypatch):
    with matplotlib.rc_context():  # the import sets a style
        from quapy.method.aggregative import EMQ

    monkeypatch.setattr(EMQ, "MAX_ITER", 5000)
    logits, prior = random_case(seed, 300, 6)
    expected, _ = EMQ.EM(prior.numpy(), logits.softmax(1).numpy(), epsilon=1e-10)
    found = class_shares(logits, prior=prior, steps=5000, tolerance=1e-10)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)
    assert abs(expected - prior.numpy()).max() > 0.05


def gaussians(size: int, shares: list[float], prior: list[float]) -> torch.Tensor:
    """Exact logits, under a prior, of samples of three Gaussians in these shares."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    label = torch.arange(3).repeat_interleave(torch.tensor([round(size * share) for share in shares]))
    points = centres[label] + torch.randn(size, 2, generator=generator, dtype=torch.float64)
    return torch.tensor(prior).double().log() - torch.cdist(points, centres).square() / 2


@pytest.mark.parametrize("shares", [[0.2, 0.7, 0.1], [0.5, 0.3, 0.2], [0.0, 0.4, 0.6]])
def test_exact_posteriors_give_the_shares_of_the_pool(shares):
    prior = [0.5, 0.3, 0.2]
    logits = gaussians(20_000, shares, prior)
    assert class_shares(logits, prior=prior).tolist() == pytest.approx(shares, abs=0.01)


def test_a_prior_that_is_the_mean_probability_stays():
    logits, _ = random_case(0, 50, 4)
    prior = logits.softmax(1).mean(0)
    assert class_shares(logits, prior=prior).tolist() == pytest.approx(prior.tolist(), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_likelihood_never_falls(seed):
    logits, prior = random_case(seed, 80, 5)
    ratio = logits.softmax(1) / prior
    likelihood = [
        float((ratio @ class_shares(logits, prior=prior, steps=steps, tolerance=0.0)).log().sum())
        for steps in range(30)
    ]
    assert all(after >= before - 1e-9 for before, after in pairwise(likelihood))
    assert likelihood[-1] > likelihood[0] + 1


def test_iteration_ends_below_the_tolerance():
    logits, prior = random_case(0, 80, 5)
    path = [class_shares(logits, prior=prior, steps=steps, tolerance=0.0) for steps in range(60)]
    change = [float((b - a).abs().max()) for a, b in pairwise(path)]
    first = next(k for k, value in enumerate(change) if value < 1e-3)
    assert 0 < first < 59
    assert torch.equal(class_shares(logits, prior=prior, tolerance=1e-3), path[first + 1])


def test_extreme_logits_give_numbers():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [1e4, 0.0, -1e4], [1e4, -1e4, -1e4]])
    assert class_shares(logits).tolist() == pytest.approx([0.75, 0.25, 0.0])
    prior = torch.tensor([1e-300, 0.5, 0.5], dtype=torch.float64)
    assert class_shares(logits, prior=prior).tolist() == pytest.approx([0.75, 0.25, 0.0])
    assert class_shares(torch.full((2, 2), 1e4)).tolist() == [0.5, 0.5]
    assert class_shares(np.array([[1.7e308, -1.7e308]])).tolist() == [1.0, 0.0]


def test_types_and_blocks_do_not_matter(monkeypatch):
    logits = random_case(0, 40, 4)[0].half()
    expected = pytest.approx(class_shares(logits.double()).tolist(), abs=1e-12)
    monkeypatch.setattr(outcomes, "BLOCK", 12)
    for values in (logits, logits.float().numpy(), logits.tolist()):
        assert class_shares(values).tolist() == expected


GOOD = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        (GOOD[:0], {}, "logits are empty; give at least one sample"),
        (GOOD[0], {}, r"logits have shape \(3,\) and dtype torch.float32; give floating"),
        (GOOD.long(), {}, "dtype torch.int64; give floating"),
        (torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), {}, "logits of row 1 are not finite; drop the row"),
        (torch.tensor([[0.0, -math.inf]]), {}, "logits of row 0 are not finite; drop the row"),
        (GOOD, {"prior": [0.2, 0.8]}, r"prior has shape \(2,\); give one .* 3 columns"),
        (GOOD, {"prior": 1.0}, r"prior has shape \(\); give one share"),
        (GOOD, {"prior": [0.5, 0.5, 0.0]}, r"prior\[2\]=0.0: give positive shares"),
        (GOOD, {"prior": [0.5, -0.5, 1.0]}, r"prior\[1\]=-0.5: give positive shares"),
        (GOOD, {"prior": [math.nan, 0.5, 0.5]}, r"prior\[0\]=nan: give positive shares"),
        (GOOD, {"prior": [0.25, 0.5, 0.5]}, "prior sums to 1.25; divide it by its sum"),
        (GOOD, {"prior": [math.inf, 0.5, 0.5]}, "prior sums to inf; divide it by its sum"),
        (GOOD, {"prior": "abc"}, "values of type str are no numbers"),
    ],
)
def test_bad_input_is_one_line(logits, options, message):
    with pytest.raises(InputError, match=message) as refusal:
        class_shares(logits, **options)
    assert "\n" not in str(refusal.value)
