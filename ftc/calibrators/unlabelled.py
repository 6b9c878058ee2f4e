"""Calibrators of the unlabelled lane, which also use target images of any class without labels."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ftc.calibrators.base import Calibration, Calibrator, by_criterion
from ftc.calibrators.evidence import SeenEvidence, UnlabelledEvidence
from ftc.errors import InputError
from ftc.functional.accuracy import Criterion
from ftc.functional.gamma import matching_quantile
from ftc.functional.mixture import (
    absent_posterior,
    absent_share,
    em_share,
    expected_best_gamma,
    mixture_gamma,
)

Prior = float | Literal["estimate", "em"] | None

_WITHOUT_SOURCE = (
    "needs the source model's logits on pool and held-out samples (in files: source_logits); give them, or "
    "leave the calibrator out"
)


class _OnPool(Calibrator[UnlabelledEvidence]):
    """A calibrator that needs the share π of absent-class images in the pool.

    π is given by hand or by class counts, or is estimated.
    """

    evidence = UnlabelledEvidence
    lane = "unlabelled"

    def __init__(self, prior: Prior) -> None:
        if prior is not None and prior != "estimate" and prior != "em":
            _check_share("prior", prior, "estimate, em, or null for |U| / (|S| + |U|)")
        self.prior: Prior = prior
        self.held_out = prior == "estimate"
        self.source = prior == "em"

    def _share(self, evidence: UnlabelledEvidence) -> tuple[float, tuple[str, ...]]:
        """π, and the data that it comes from."""
        if self.prior is None:
            return evidence.class_share, (evidence.origin, "class counts")
        if self.prior == "estimate":
            seen = _held_out(evidence)
            return absent_share(evidence.fine_tuned.margin, seen.fine_tuned.margin), (
                evidence.origin,
                seen.origin,
            )
        if self.prior == "em":
            if evidence.source is None:
                raise InputError(_WITHOUT_SOURCE)
            share = em_share(evidence.source.odds, evidence.class_share)
            return share, (evidence.origin, "class counts", "source model")
        return self.prior, (evidence.origin, f"prior {self.prior:g}")


class PriorMatching(_OnPool):
    """Prior matching: γ sends the share π of the unlabelled images to the absent classes.

    γ is the π-quantile of the pool's margins, so an error in π becomes an error in the share of images sent
    to U and may cost several points (docs/definitions.md, "Estimators of γ").

    Args:
        prior: π, the share of absent-class images in the pool; None takes ``|U| / (|S| + |U|)``; ``estimate``
            estimates π from held-out seen samples, see `ftc.functional.mixture.absent_share`; ``em`` from the
            source model's probabilities, see `ftc.functional.mixture.em_share`.

    Raises:
        InputError: π outside [0, 1].
    """

    def __init__(self, prior: Prior = None) -> None:
        super().__init__(prior)
        how = {"estimate": ", estimated", "em": ", EM"}.get(str(prior), "")
        self.title = f"prior-matched{how}"

    def estimate(self, evidence: UnlabelledEvidence) -> Calibration:
        share, uses = self._share(evidence)
        gamma = matching_quantile(evidence.fine_tuned.margin, share)
        return Calibration(gamma, uses, self.lane, {"absent_share": share})


class MarginMixture(_OnPool):
    """Margin mixture: γ from the pool's margins as a mixture of seen and absent ones.

    Held-out samples give the distribution of the seen margins; the rest of the pool's is that of the absent
    ones. γ maximises the criterion of the accuracies so estimated (docs/definitions.md, "Estimators of γ").

    Args:
        prior: see `PriorMatching`.
        hit_ratio: Acc_{U/U} as a multiple of Acc_{S/F} on held-out samples.
        smoothing: width of the moving mean over the estimated accuracies, as a share of the points.
        criterion: the score to maximise, see `ftc.functional.accuracy.criterion_scores`.

    Raises:
        InputError: a share outside [0, 1], or an unknown criterion.
    """

    def __init__(
        self,
        prior: Prior = None,
        hit_ratio: float = 0.8,
        smoothing: float = 0.1,
        criterion: Criterion = "acc_all",
    ) -> None:
        super().__init__(prior)
        self.title = by_criterion("margin mixture", criterion)
        self.criterion: Criterion = criterion
        self.held_out = True
        self.hit_ratio = _check_share("hit_ratio", hit_ratio)
        self.smoothing = _check_share("smoothing", smoothing)

    def estimate(self, evidence: UnlabelledEvidence) -> Calibration:
        share, uses = self._share(evidence)
        seen = _held_out(evidence)
        gamma = mixture_gamma(
            evidence.fine_tuned.margin,
            seen.fine_tuned.margin,
            seen.fine_tuned.hit,
            share,
            self.hit_ratio,
            self.smoothing,
            self.criterion,
        )
        uses = tuple(dict.fromkeys((*uses, seen.origin)))
        return Calibration(gamma, uses, self.lane, {"absent_share": share})


class ExpectedAccuracy(Calibrator[UnlabelledEvidence]):
    """Expected accuracy: γ with the best score to expect, where both margins tell an image's group.

    A logistic mixture, fitted by EM, tells how likely each pool image is of an absent class: held-out samples
    are known to be seen, and the fit estimates the pool's share of absent-class images. How often the right
    absent class leads is estimated by how often source and fine-tuned model agree on the leading one. γ then
    maximises the expected criterion (docs/definitions.md, "Estimators of γ").

    Args:
        prior: share of absent-class images in the pool where it is known; None estimates it.
        deployed: share of absent-class images where the model will be used; None takes
            ``|U| / (|S| + |U|)``, as if all classes were equally common; ``pool`` takes the pool's.
            Acc_{Y/Y} alone depends on it.
        criterion: the score to maximise, see `ftc.functional.accuracy.criterion_scores`.

    Raises:
        InputError: a prior outside (0, 1), another share outside [0, 1], an unknown criterion, or
            ``deployed`` with a criterion that does not depend on it.
    """

    lane = "unlabelled"
    evidence = UnlabelledEvidence
    source = True
    held_out = True

    def __init__(
        self,
        prior: float | None = None,
        deployed: float | Literal["pool"] | None = None,
        criterion: Criterion = "acc_all",
    ) -> None:
        self.title = by_criterion("expected accuracy", criterion)
        self.criterion: Criterion = criterion
        self.prior = prior if prior is None else _check_share("prior", prior, "null to estimate it")
        if self.prior in (0.0, 1.0):
            raise InputError(
                f"prior={prior}: a pool of one group tells nothing; give a share between 0 and 1"
            )
        if deployed is not None and deployed != "pool":
            deployed = _check_share("deployed", deployed, "pool, or null for |U| / (|S| + |U|)")
        if deployed is not None and criterion != "acc_all":
            raise InputError(
                f"deployed={deployed}: does not matter to criterion={criterion}; leave it out, or choose "
                "acc_all"
            )
        self.deployed = deployed

    def estimate(self, evidence: UnlabelledEvidence) -> Calibration:
        seen = _held_out(evidence)
        pool = evidence.fine_tuned
        posterior, share, absent_hit = beliefs(evidence, self.prior)
        hits = (float(seen.fine_tuned.hit.double().mean()), absent_hit)
        deployed = evidence.class_share if self.deployed is None else self.deployed
        gamma, score = expected_best_gamma(
            seen.fine_tuned.margin,
            pool.margin,
            posterior,
            hits,
            share if deployed == "pool" else deployed,
            criterion=self.criterion,
        )
        details = {"absent_share": share, f"expected_{self.criterion}": score}
        return Calibration(gamma, (evidence.origin, seen.origin, "source model"), self.lane, details)


def beliefs(evidence: UnlabelledEvidence, prior: float | None = None) -> tuple[Tensor, float, float]:
    """What a pool tells of its absent-class images, whose labels nobody knows.

    Args:
        evidence: the pool, and V, under both models.
        prior: share of absent-class images in the pool where it is known; None estimates it.

    Returns:
        The probability of each image to be of an absent class, float64 (N,); their share of the pool; and how
        often the right absent class leads U, taken to be as often as both models agree on the leading one.

    Raises:
        InputError: no held-out samples, no logits of the source model, or margins that do not vary.
    """
    seen, pool = _held_out(evidence), evidence.fine_tuned
    if evidence.source is None or seen.source is None:
        raise InputError(_WITHOUT_SOURCE)
    posterior, share = absent_posterior(
        (seen.source.margin, seen.fine_tuned.margin), (evidence.source.margin, pool.margin), prior
    )
    agree = (pool.top_absent == evidence.source.top_absent).double()
    return posterior, share, float((posterior * agree).sum() / posterior.sum())


def _held_out(evidence: UnlabelledEvidence) -> SeenEvidence:
    if evidence.seen is None:
        raise InputError(
            "needs labelled seen samples held out of fine-tuning (validation samples of seen classes); give "
            "them, or leave the calibrator out"
        )
    return evidence.seen


def _check_share(name: str, value: float, otherwise: str = "") -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        choices = f", {otherwise}" if otherwise else ""
        raise InputError(f"{name}={value!r}: give a share between 0 and 1{choices}")
    return float(value)
