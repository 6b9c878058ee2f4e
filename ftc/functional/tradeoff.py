"""The trade-off between seen and absent accuracy along γ, estimated without a label of an absent class."""

from __future__ import annotations

import math

import torch
from attrs import frozen
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.bootstrap import Interval, percentile_interval, resampled_counts
from ftc.functional.mixture import expected_best_gamma


@frozen(eq=False)
class TradeOff:
    """What held-out seen samples, and a pool where there is one, tell of S/Y and U/Y at every γ.

    Attributes:
        margin: margins of held-out seen samples, float64 (M,).
        hit: argmax_F z = y of the same samples, bool (M,).
        pool_margin: margins of the pool, float64 (N,); None without one.
        posterior: probability that a pool image is of an absent class, float64 (N,); None without a pool.
        absent_hit: how often the right absent class leads U, a fraction.
    """

    margin: Tensor
    hit: Tensor
    pool_margin: Tensor | None = None
    posterior: Tensor | None = None
    absent_hit: float = math.nan

    def at(self, gamma: float) -> tuple[float, float]:
        """Estimates of S/Y and U/Y at γ, fractions; U/Y is ``nan`` without a pool."""
        kept, gained = self._kept(gamma), self._gained(gamma)
        seen = float(kept.mean())
        return seen, math.nan if gained is None else self.absent_hit * float(gained.sum() / self._mass)

    def intervals(
        self, gamma: float, replicates: int = 1000, confidence: float = 0.95, seed: int = 0
    ) -> tuple[Interval, Interval]:
        """Percentile bootstrap intervals of `at`: held-out samples and pool are drawn anew.

        The posterior and ``absent_hit`` stay as they were estimated, so that the interval of U/Y is too
        narrow by what those may be wrong.
        """
        kept, gained = self._kept(gamma), self._gained(gamma)
        counts = torch.cat([rows @ kept for rows in resampled_counts(len(kept), replicates, seed)])
        seen = percentile_interval(counts / len(kept), confidence)
        if gained is None or self.posterior is None:
            return seen, (math.nan, math.nan)
        shares = [
            (rows @ gained) / (rows @ self.posterior)
            for rows in resampled_counts(len(gained), replicates, seed)
        ]
        return seen, percentile_interval(self.absent_hit * torch.cat(shares), confidence)

    def best_gamma(self, share: float) -> float | None:
        """γ of the best expected accuracy where ``share`` of the images are of absent classes.

        Returns:
            None without a pool, which alone tells where absent samples lie.
        """
        if self.pool_margin is None or self.posterior is None:
            return None
        hits = (float(self.hit.double().mean()), self.absent_hit)
        return expected_best_gamma(self.margin, self.pool_margin, self.posterior, hits, share)[0]

    def largest_gamma(self, acc_seen: float) -> float:
        """The largest γ that leaves S/Y of the held-out samples at a floor: most of U/Y at this price.

        The middle of the interval of γ in which as many samples stay right.

        Raises:
            InputError: S/Y is below the floor whatever γ is.
        """
        wanted = math.ceil(acc_seen * len(self.hit) - 1e-9)
        right = self.margin[self.hit].sort(descending=True).values
        if wanted > len(right) or not wanted:
            most = 100 * len(right) / max(1, len(self.hit))
            raise InputError(
                f"min_acc_seen={acc_seen:g}: S/Y of the {len(self.hit)} held-out seen images is {most:.1f} % "
                "at most, without any absent class; ask for less, and more than 0"
            )
        last = float(right[wanted - 1])
        lower = right[right < last]
        return last - 1.0 if not len(lower) else (last + float(lower[0])) / 2

    @property
    def _mass(self) -> Tensor:
        assert self.posterior is not None
        return self.posterior.sum()

    def _kept(self, gamma: float) -> Tensor:
        return (self.hit & (self.margin >= gamma)).double()

    def _gained(self, gamma: float) -> Tensor | None:
        if self.pool_margin is None or self.posterior is None:
            return None
        return torch.where(self.pool_margin < gamma, self.posterior, 0.0)


def effective_share(share: float, cost_seen: float, cost_absent: float) -> float:
    """The share of absent-class images at which plain accuracy weighs errors as these costs do at ``share``.

    Args:
        share: expected share of absent-class images, between 0 and 1.
        cost_seen, cost_absent: costs of an error on an image of a seen and of an absent class, above 0.
    """
    absent = share * cost_absent
    return absent / (absent + (1 - share) * cost_seen)


def shifted_gamma(gamma: float, before: float, after: float, temperature: float = 1.0) -> float:
    """γ for another share of absent-class images, by Bayes' rule: γ + T (logit after − logit before).

    It is right as far as softmax((z + γ·1_U) / T) are the probabilities of classes where the share is
    ``before`` (Saerens et al. 2002, equation 2.4, for two groups).

    Args:
        gamma: γ in logits, which suits ``before``.
        before, after: shares of absent-class images, between 0 and 1.
        temperature: T.
    """
    return gamma + temperature * (math.log(after / (1 - after)) - math.log(before / (1 - before)))
