"""What the unlabelled lane computes, against plain loops and known mixtures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ftc import InputError
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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixture_gamma_equals_a_plain_loop(smoothing):
    seen, pool = draw(150, 0.0)[1], draw(200, 0.5, 1)[1]
    hit = torch.rand(150, generator=torch.Generator().manual_seed(2)) < 0.9
    share, hit_ratio = 0.45, 0.8
    h = hit_ratio * float(hit.double().mean())
    candidates = sorted(pool.tolist())
    score = []
    for gamma in candidates:
        kept = np.mean(hit.numpy() & (seen.numpy() >= gamma))
        absent_below = np.mean(pool.numpy() < gamma) - (1 - share) * np.mean(seen.numpy() < gamma)
        score.append((1 - share) * kept + h * absent_below)
    width = max(1, int(smoothing * len(candidates)))
    means = [np.mean(score[i : i + width]) for i in range(len(score) - width + 1)]
    expected = candidates[int(np.argmax(means)) + width // 2]
    assert mixture_gamma(pool, seen, hit, share, hit_ratio, smoothing) == pytest.approx(expected)


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


def test_expected_accuracy_equals_the_smoothed_shares():
    seen, (_, pool, absent) = draw(200, 0.0)[1], draw(300, 0.5, 1)
    posterior = 0.1 + 0.8 * absent.double()
    gamma, accuracy = expected_best_gamma(seen, pool, posterior, (0.9, 0.8), 0.4)
    margin = torch.cat([seen, pool])
    bandwidth = 0.1 * float(margin.std())

    def expected(g: float) -> float:
        below = 0.5 * (1 + torch.erf((g - margin) / bandwidth / 2**0.5))
        of_seen = torch.cat([torch.ones(200), 1 - posterior])
        kept = 1 - float((below * of_seen).sum() / of_seen.sum())
        gained = float((below[200:] * posterior).sum() / posterior.sum())
        return 0.6 * 0.9 * kept + 0.4 * 0.8 * gained

    assert accuracy == pytest.approx(expected(gamma))
    assert accuracy >= max(map(expected, np.linspace(-2, 6, 200))) - 1e-4
