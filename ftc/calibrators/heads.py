"""Calibrators that move the rows of the head as well, which stays a plain linear layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ftc.calibrators.base import Calibration, Calibrator
from ftc.calibrators.evidence import FeatureEvidence, HeadEvidence, SeenFeatures
from ftc.calibrators.unlabelled import ExpectedAccuracy
from ftc.calibrators.weights import LinearHead
from ftc.errors import InputError
from ftc.functional.gamma import is_no_worse
from ftc.functional.prototypes import align_norms, prototype_head, variance_ratio
from ftc.partition import ClassPartition


class WeightAligning(Calibrator[HeadEvidence]):
    """Weight aligning: rows of seen classes are scaled to the mean norm of absent ones; γ is 0.

    Source: Zhao et al. 2020, see `ftc.functional.prototypes.align_norms`.
    """

    title = "weight aligning"
    evidence = HeadEvidence
    moves_head = True

    def estimate(self, evidence: HeadEvidence) -> Calibration:
        head, partition = evidence.head, evidence.partition
        rows = align_norms(head.weight, list(partition.seen), list(partition.absent))
        aligned = LinearHead(rows.to(head.weight), head.bias)
        return Calibration(0.0, (evidence.origin,), head=aligned)


class Prototypes(Calibrator[FeatureEvidence]):
    """Prototypes: a calibrated model teaches its own head what the classes of a pool look like.

    γ̂ of another calibrator makes the model a teacher; class means of the pool's features under it, with a
    covariance that all classes share, are added to the head (`ftc.functional.prototypes.prototype_head`).
    Held-out seen samples say how noisy means are, and whether the head may move at all: not where it costs
    them more accuracy than they can tell from chance (docs/definitions.md, "Prototypes").

    Args:
        calibrator: the calibrator of γ, on the same pool.
        shrinkage: the samples that the pool's mean counts for in the mean of a class, as a multiple of
            `ftc.functional.prototypes.variance_ratio` on held-out seen samples. Where that is infinite, the
            head does not move.
        ridge, rounds: see `prototype_head`.
        strengths: λ of the head's change, the first that held-out seen samples admit.
        tolerance: how much Acc_{S/Y} on held-out seen samples the change may cost, a fraction; or one
            standard error, where that is more.

    Raises:
        InputError: a calibrator that does not look at a pool alone, or numbers that make no sense.
    """

    lane = "unlabelled"
    evidence = FeatureEvidence
    held_out = True
    moves_head = True

    def __init__(
        self,
        calibrator: Calibrator[Any] | None = None,
        shrinkage: float = 40.0,
        ridge: float = 0.5,
        rounds: int = 10,
        strengths: Sequence[float] = (1.0, 0.3, 0.1),
        tolerance: float = 0.01,
    ) -> None:
        self.inner = ExpectedAccuracy() if calibrator is None else calibrator
        if not isinstance(self.inner, Calibrator) or self.inner.lane != "unlabelled" or self.inner.moves:
            raise InputError(f"calibrator={calibrator!r}: give one that estimates γ from a pool alone")
        if not 0 <= ridge <= 1 or shrinkage < 0 or rounds < 1 or any(s <= 0 for s in strengths):
            raise InputError(
                f"shrinkage={shrinkage}, ridge={ridge}, rounds={rounds}, strengths={list(strengths)}: give a "
                "ridge between 0 and 1, a round or more, strengths above 0 and no shrinkage below it"
            )
        self.source = self.inner.source
        self.shrinkage, self.ridge, self.rounds = shrinkage, ridge, rounds
        self.strengths = tuple(strengths)
        self.tolerance = tolerance
        usual = self.inner.title == ExpectedAccuracy().title
        self.title = "prototypes" if usual else f"prototypes, {self.inner.title}"

    def estimate(self, evidence: FeatureEvidence) -> Calibration:
        held_out = evidence.held_out
        if held_out is None or not len(held_out.target):
            raise InputError("needs labelled seen samples held out of fine-tuning, with their features")
        calibration = self.inner.estimate(evidence.unlabelled)
        head, partition = evidence.head, evidence.partition
        logits = _shifted(head.logits(evidence.pool), partition, calibration.gamma)
        ratio = variance_ratio(held_out.features, held_out.target) if self.shrinkage else 0.0
        # Means that count for nothing move nothing.
        strengths = self.strengths if math.isfinite(ratio) else ()
        shrinkage = self.shrinkage * ratio
        before = _hits(head, calibration.gamma, held_out, partition)
        taken, moved = 0.0, head
        for strength in strengths:
            change = prototype_head(
                evidence.pool,
                logits,
                (evidence.train.features, evidence.train.target),
                shrinkage,
                strength,
                self.ridge,
                self.rounds,
            )
            candidate = head.moved(*change)
            if is_no_worse(_hits(candidate, calibration.gamma, held_out, partition), before, self.tolerance):
                taken, moved = strength, candidate
                break
        uses = tuple(dict.fromkeys((*calibration.uses, "seen train", evidence.origin)))
        details = {**calibration.details, "strength": taken}
        if strengths:
            details["shrinkage"] = shrinkage
        return Calibration(calibration.gamma, uses, self.lane, details, moved)


def _shifted(logits: Tensor, partition: ClassPartition, gamma: float) -> Tensor:
    """Logits (N, C) with γ added to absent columns, in place."""
    logits[:, list(partition.absent)] += gamma
    return logits


def _hits(head: LinearHead, gamma: float, seen: SeenFeatures, partition: ClassPartition) -> Tensor:
    """argmax_Y z = y at γ, bool (N,)."""
    logits = _shifted(head.logits(seen.features), partition, gamma)
    return torch.eq(logits.argmax(1), seen.target)
