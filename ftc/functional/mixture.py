"""The arithmetic of unlabelled estimators, on margins alone (docs/definitions.md, "Estimators of γ")."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.accuracy import Criterion, criterion_scores
from ftc.functional.gamma import matching_quantile
from ftc.functional.shares import class_shares

# The q of prior matching with an estimated share (docs/definitions.md, "Estimators of γ").
SHARE_QUANTILES = (0.3, 0.4, 0.5, 0.6, 0.7)


def absent_share(pool_margin: Tensor, seen_margin: Tensor) -> float:
    """The share of absent-class images in a pool, from margins of held-out seen samples alone.

    Well above the margins of absent samples nearly all mass is seen: with t the q-quantile of the seen
    margins, 1 − π ≈ P_pool(m ≥ t) / (1 − q); the median over five q, clipped to [0, 1]
    (docs/definitions.md, "Estimators of γ").

    Args:
        pool_margin: margins of the pool, float64 (N,).
        seen_margin: margins of samples that the model was not trained on, float64 (M,).

    Raises:
        InputError: no samples.
    """
    shares = []
    for q in SHARE_QUANTILES:
        above = pool_margin >= matching_quantile(seen_margin, q)
        shares.append(1 - float(above.double().mean()) / (1 - q))
    return min(max(sorted(shares)[len(shares) // 2], 0.0), 1.0)


def em_share(odds: Tensor, prior: float) -> float:
    """The share of absent-class images in a pool, by EM from a model's probabilities of U and S.

    Args:
        odds: log of the model's probability of U minus that of S, float64 (N,), see `PoolStatistics`.
        prior: the share of absent classes in the model's training.

    Raises:
        InputError: see `ftc.functional.shares.class_shares`.
    """
    return float(class_shares(torch.stack([torch.zeros_like(odds), odds], 1), prior=[1 - prior, prior])[1])


def mixture_gamma(
    pool_margin: Tensor,
    seen_margin: Tensor,
    seen_hit: Tensor,
    share: float,
    hit_ratio: float,
    smoothing: float,
    criterion: Criterion = "acc_all",
) -> float:
    """γ of the margin mixture: pool CDF = (1 − π) CDF_S + π CDF_U.

    γ maximises the criterion of Acc_{S/Y}(γ) and h CDF_U(γ) over the pool's margins, both smoothed by a
    moving mean (docs/definitions.md, "Estimators of γ").

    Args:
        pool_margin: margins of the pool, float64 (N,).
        seen_margin: margins of held-out seen samples, float64 (M,).
        seen_hit: argmax_F z = y of the same samples, bool (M,).
        share: share π of absent-class images in the pool.
        hit_ratio: h as a multiple of Acc_{S/F}.
        smoothing: width of the moving mean, as a share of the points.
        criterion: the score to maximise, see `criterion_scores`; of ``acc_all`` π is the share.
    """
    gamma = pool_margin.sort().values
    below_pool = torch.arange(len(gamma), dtype=torch.float64) / len(gamma)
    ordered = seen_margin.sort().values
    below_seen = torch.searchsorted(ordered, gamma).double() / len(ordered)
    kept = seen_margin[seen_hit].sort().values
    acc_seen = (len(kept) - torch.searchsorted(kept, gamma)).double() / len(seen_margin)
    h = hit_ratio * float(seen_hit.double().mean())
    gained = h * (below_pool - (1 - share) * below_seen)
    width = max(1, int(smoothing * len(gamma)))
    seen, absent, everything = (
        rate.unfold(0, width, 1).mean(1) for rate in (acc_seen, gained, (1 - share) * acc_seen + gained)
    )
    # A difference of two samples' shares may leave [0, 1], where no harmonic mean is defined; and a share of
    # less than one image of the pool would blow it up.
    absent = (absent / max(share, 1 / len(gamma))).clamp(0, h)
    score = criterion_scores(seen, absent, everything)[criterion]
    return float(gamma[int(score.argmax()) + width // 2])


def absent_posterior(
    seen: tuple[Tensor, Tensor],
    pool: tuple[Tensor, Tensor],
    share: float | None = None,
    ridge: float = 0.1,
    steps: int = 60,
    tolerance: float = 1e-4,
) -> tuple[Tensor, float]:
    """The probability of an absent class for each pool image: logistic in both models' margins, by EM.

    Held-out samples are known to be seen, the groups of pool images are latent. The posterior starts from the
    source model's own routing and ends where logistic regression on it reproduces it.

    Args:
        seen: source and fine-tuned margins of held-out seen samples, float64 (M,) each.
        pool: source and fine-tuned margins of the pool, float64 (N,) each.
        share: share of absent-class images in the pool, where it is known; None estimates it as the mean
            posterior.
        ridge: penalty on the two slopes, for margins in units of their standard deviation.
        steps: the most EM steps.
        tolerance: the iteration ends once every posterior changes by less than this.

    Returns:
        Posteriors, float64 (N,), and the share of absent-class images.

    Raises:
        InputError: margins that do not vary, so that nothing can be told apart.
    """
    scale = [float(torch.cat(pair).std()) for pair in zip(seen, pool, strict=True)]
    if not all(0 < value < torch.inf for value in scale):
        raise InputError("margins of pool and held-out samples do not vary; give more images")
    known, latent = (
        torch.stack([torch.ones_like(margins[0]), margins[1] / scale[1], margins[0] / scale[0]], 1)
        for margins in (seen, pool)
    )
    inputs = torch.cat([known, latent, latent])
    label = torch.cat([inputs.new_zeros(len(known) + len(latent)), inputs.new_ones(len(latent))])
    penalty = ridge * torch.diag(inputs.new_tensor([1e-9, 1.0, 1.0]))
    weights = inputs.new_zeros(3)
    # However far apart logits are, no image is beyond doubt before the first step.
    posterior = torch.sigmoid(-pool[0] / 2).clamp(1e-12, 1 - 1e-12)
    prior = float(posterior.mean()) if share is None else share
    for _ in range(steps):
        before = posterior
        mass = torch.cat([inputs.new_ones(len(known)), 1 - posterior, posterior])
        for _ in range(3):
            p = torch.sigmoid(inputs @ weights)
            hessian = inputs.T @ ((mass * p * (1 - p))[:, None] * inputs) + penalty
            gradient = inputs.T @ (mass * (label - p)) - penalty @ weights
            weights = weights + torch.linalg.solve(hessian, gradient)
        # The odds of the regression count the held-out samples as well; those of the pool do not.
        odds = float(posterior.sum()) / (len(known) + float((1 - posterior).sum()))
        score = latent @ weights - math.log(odds)
        if share is None:
            posterior = torch.sigmoid(score + math.log(prior / (1 - prior)))
            prior = min(max(float(posterior.mean()), 0.01), 0.99)
        else:
            posterior = _with_mean(score, share)
        if float((posterior - before).abs().max()) < tolerance:
            break
    return posterior, prior


def _with_mean(score: Tensor, mean: float) -> Tensor:
    """The sigmoid of the scores (N,), shifted so that its mean is the given one."""
    low, high = -100.0 - float(score.max()), 100.0 - float(score.min())
    for _ in range(60):
        middle = (low + high) / 2
        if float(torch.sigmoid(score + middle).mean()) < mean:
            low = middle
        else:
            high = middle
    return torch.sigmoid(score + low)


def expected_best_gamma(
    seen_margin: Tensor,
    pool_margin: Tensor,
    posterior: Tensor,
    hits: tuple[float, float],
    share: float,
    width: float = 0.1,
    points: int = 400,
    criterion: Criterion = "acc_all",
) -> tuple[float, float]:
    """γ of the best expected score, with margins of both groups smoothed by a Gaussian.

    Args:
        seen_margin: margins of held-out seen samples, float64 (M,).
        pool_margin: margins of the pool, float64 (N,).
        posterior: probability that a pool image is of an absent class, (N,).
        hits: how often the right class leads its own group, for seen and for absent samples, fractions.
        share: share of absent-class images where the model will be used; Acc_{Y/Y} alone depends on it.
        width: standard deviation of the Gaussian, in standard deviations of the margins.
        points: number of candidates for γ.
        criterion: the score to maximise, see `criterion_scores`.

    Returns:
        γ in logits and its expected score, a fraction.
    """
    margin = torch.cat([seen_margin, pool_margin])
    of_seen = torch.cat([torch.ones_like(seen_margin), 1 - posterior])
    of_absent = torch.cat([torch.zeros_like(seen_margin), posterior])
    of_seen, of_absent = of_seen / of_seen.sum(), of_absent / of_absent.sum()
    low, high = (matching_quantile(margin, q) for q in (0.005, 0.995))
    gamma = torch.linspace(low, high, points, dtype=torch.float64)
    bandwidth = width * float(margin.std())
    rates = []
    for g in gamma:
        below = torch.special.ndtr((g - margin) / bandwidth)
        rates.append(torch.stack([1 - below @ of_seen, below @ of_absent]))
    seen, absent = torch.stack(rates, 1) * gamma.new_tensor(hits)[:, None]
    score = criterion_scores(seen, absent, (1 - share) * seen + share * absent)[criterion]
    best = int(score.argmax())
    return float(gamma[best]), float(score[best])


def expected_accuracy(
    seen: tuple[Tensor, Tensor], pool_margin: Tensor, posterior: Tensor, absent_hit: float, gamma: float
) -> float:
    """The Acc_{Y/Y} to expect of the model at γ on a pool: that of V for its seen part, a guess for the rest.

    Args:
        seen: margins, float64 (M,), and argmax_F z = y, bool (M,), of held-out seen samples.
        pool_margin: margins of the pool, float64 (N,).
        posterior: probability that a pool image is of an absent class, (N,).
        absent_hit: how often the right class leads its group for absent samples, a fraction.
        gamma: γ in logits.
    """
    margin, hit = seen
    kept = float((hit & (margin >= gamma)).double().mean())
    gained = float((posterior * (pool_margin < gamma)).mean()) * absent_hit
    return (1 - float(posterior.mean())) * kept + gained
