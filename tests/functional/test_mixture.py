"""What the unlabelled lane computes, against plain loops and known mixtures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftc import InputError
from ftc.functional.accuracy import CRITERIA
from ftc.functional.mixture import absent_posterior, absent_share, expected_best_gamma, mixture_gamma


def draw(size: int, share: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Source and fine-tuned margins, float64, and who is absent: two overlapping Gaussians each."""
    generator = torch.Generator().manual_seed(seed)
    absent = torch.rand(size, generator=generator) < share
    noise = torch.randn(2, size, generator=generator, dtype=torch.float64)
    return 1 - 2 * absent.double() + noise[0], 3 - 2 * absent.double() + noise[1], absent


def test_share_equals_the_median_of_its_quantiles():
    seen, pool = draw(500, 0.0)[1], draw(700, 0.4, 1)[1]
    shares = [
        1 - np.mean(pool.numpy() >= np.quantile(seen.numpy(), q)) / (1 - q) for q in (0.3, 0.4, 0.5, 0.6, 0.7)
    ]
    assert absent_share(pool, seen) == pytest.approx(np.median(shares))


def test_share_is_one_even_where_the_estimate_is_not():
    seen = draw(500, 0.0)[1]
    assert absent_share(seen + 1, seen) == 0.0
    assert absent_share(seen - 100, seen) == 1.0
    with pytest.raises(InputError, match="at least one sample"):
        absent_share(seen, seen[:0])


def score_of(criterion: str, seen: float, absent: float, share: float) -> float:
    if criterion == "harmonic":
        return 2 * seen * absent / (seen + absent) if seen + absent else 0.0
    weight = 0.5 if criterion == "balanced" else share
    return (1 - weight) * seen + weight * absent


criteria = st.sampled_from(CRITERIA)
shares = st.floats(0, 1)


@settings(max_examples=60)
@given(criteria, st.integers(0, 99), shares, shares, st.sampled_from([0.0, 0.1]))
def test_mixture_gamma_equals_a_plain_loop(criterion, seed, true, share, smoothing):
    seen, pool = draw(40, 0.0, seed)[1], draw(60, true, seed + 1)[1]
    hit = torch.rand(40, generator=torch.Generator().manual_seed(seed)) < 0.9
    h = 0.8 * float(hit.double().mean())
    candidates = sorted(pool.tolist())
    rates = []
    for gamma in candidates:
        kept = np.mean(hit.numpy() & (seen.numpy() >= gamma))
        gained = h * (np.mean(pool.numpy() < gamma) - (1 - share) * np.mean(seen.numpy() < gamma))
        rates.append((kept, gained))
    width = max(1, int(smoothing * len(candidates)))
    scores = []
    for start in range(len(rates) - width + 1):
        kept, gained = np.mean(rates[start : start + width], axis=0)
        absent = min(max(gained / max(share, 1 / len(pool)), 0.0), h)
        overall = (1 - share) * kept + gained
        scores.append(overall if criterion == "acc_all" else score_of(criterion, kept, absent, share))
    found = mixture_gamma(pool, seen, hit, share, 0.8, smoothing, criterion)
    assert scores[candidates.index(found) - width // 2] == pytest.approx(max(scores), abs=1e-12)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_posterior_recovers_a_known_mixture(share):
    seen, pool = draw(4000, 0.0), draw(4000, share, 1)
    posterior, found = absent_posterior(seen[:2], pool[:2])
    true = float(pool[2].double().mean())
    assert found == pytest.approx(true, abs=0.05)
    # Gaussians of equal width: log odds are linear in both margins, here −2 z0 − 2 (z1 − 2) and the prior.
    exact = torch.sigmoid(-2 * pool[0] - 2 * (pool[1] - 2) + np.log(true / (1 - true)))
    assert float((posterior - exact).abs().mean()) < 0.05


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_posterior_has_the_share_it_was_told(share):
    posterior, found = absent_posterior(draw(300, 0.0)[:2], draw(400, 0.5, 1)[:2], share)
    assert found == share
    assert float(posterior.mean()) == pytest.approx(share, abs=1e-6)


def test_margins_that_do_not_vary_tell_nothing():
    flat = torch.zeros(10, dtype=torch.float64)
    with pytest.raises(InputError, match="do not vary"):
        absent_posterior((flat, flat), (flat, flat))


@settings(max_examples=30)
@given(criteria, st.integers(0, 99), shares, st.floats(0.1, 1))
def test_expected_accuracy_equals_the_smoothed_shares(criterion, seed, share, hit):
    seen, (_, pool, absent) = draw(200, 0.0, seed)[1], draw(300, 0.5, seed + 1)
    posterior = 0.1 + 0.8 * absent.double()
    gamma, score = expected_best_gamma(
        seen, pool, posterior, (0.9, hit), share, points=60, criterion=criterion
    )
    margin = torch.cat([seen, pool])
    bandwidth = 0.1 * float(margin.std())

    def expected(g: float) -> float:
        below = 0.5 * (1 + torch.erf((g - margin) / bandwidth / 2**0.5))
        of_seen = torch.cat([torch.ones(200), 1 - posterior])
        kept = 1 - float((below * of_seen).sum() / of_seen.sum())
        gained = float((below[200:] * posterior).sum() / posterior.sum())
        return score_of(criterion, 0.9 * kept, hit * gained, share)

    assert score == pytest.approx(expected(gamma))
    candidates = np.linspace(*np.quantile(margin.numpy(), (0.005, 0.995)), 60)
    assert score == pytest.approx(max(map(expected, candidates)))


def test_balanced_weighs_both_groups_alike():
    seen, (_, pool, absent) = draw(200, 0.0)[1], draw(300, 0.5, 1)
    evidence = (seen, pool, 0.1 + 0.8 * absent.double(), (0.9, 0.3))
    assert expected_best_gamma(*evidence, 0.2, criterion="balanced") == expected_best_gamma(*evidence, 0.5)
