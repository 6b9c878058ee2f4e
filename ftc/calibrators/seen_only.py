"""Calibrators of the seen-only lane, which use labelled seen target data and the source model alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

from ftc.calibrators.base import Calibration, Calibrator, SeenData
from ftc.calibrators.evidence import Evidence, NoEvidence, OracleEvidence, SeenEvidence
from ftc.errors import InputError
from ftc.functional.gamma import check_gap, matching_quantile
from ftc.functional.statistics import SeenStatistics
from ftc.partition import ClassPartition


class FixedGamma(Calibrator[Evidence]):
    """A γ given by hand.

    Args:
        gamma: γ in logits.

    Raises:
        InputError: γ is not a finite number.
    """

    title = "fixed γ"
    evidence = NoEvidence

    def __init__(self, gamma: float) -> None:
        if not math.isfinite(gamma):
            raise InputError(f"gamma={gamma}: give a finite number of logits")
        self.gamma = float(gamma)

    def estimate(self, evidence: Evidence) -> Calibration:
        return Calibration(self.gamma, ("nothing",))


class AverageLogitGap(Calibrator[SeenEvidence | OracleEvidence]):
    """ALG: the mean gap between the logits of S \\ {y} and of U over seen target samples.

    Source: the paper, on post-processing calibration.

    Args:
        on: ``train`` is the paper's estimator; ``held_out`` is the same on held-out samples; ``eval``, for
            parity with the released code, averages over *all* evaluated samples, those of absent classes
            included. That is a label leak, so its result is an oracle's and is reported as one.

    Raises:
        InputError: another value of ``on``.
    """

    def __init__(self, on: Literal["train", "held_out", "eval"] = "train") -> None:
        _check_choice("on", on, ("train", "held_out", "eval"))
        self.on = on
        self.held_out = on == "held_out"
        self.evidence = OracleEvidence if on == "eval" else SeenEvidence
        self.lane = "oracle" if on == "eval" else "seen_only"
        self.title = {"train": "ALG", "held_out": "ALG, held out", "eval": "ALG on test (leak)"}[on]

    def estimate(self, evidence: SeenEvidence | OracleEvidence) -> Calibration:
        if isinstance(evidence, OracleEvidence):
            gamma = float(evidence.gap.nanmean())
            return Calibration(gamma, (f"{evidence.origin} (label leak)",), "oracle")
        return Calibration(_average_gap(evidence.fine_tuned, evidence.partition), (evidence.origin,))


class _Anchored(Calibrator[SeenEvidence], ABC):
    """A calibrator that compares the fine-tuned model with its source on the same seen samples."""

    evidence = SeenEvidence
    source = True

    def __init__(self, on: SeenData) -> None:
        _check_choice("on", on, ("train", "held_out"))
        self.on = on
        self.held_out = on == "held_out"

    def estimate(self, evidence: SeenEvidence) -> Calibration:
        if evidence.source is None:
            raise InputError(
                f"{type(self).__name__} needs the source model's logits on the same samples (in files: "
                "source_logits); give them, or leave the calibrator out"
            )
        gamma = self._compare(evidence.fine_tuned, evidence.source, evidence.partition)
        return Calibration(gamma, (evidence.origin, "source model"))

    @abstractmethod
    def _compare(
        self, fine_tuned: SeenStatistics, source: SeenStatistics, partition: ClassPartition
    ) -> float:
        """γ from the same samples under both models."""


class AnchoredLogitGap(_Anchored):
    """Anchored ALG: ALG of the fine-tuned model minus ALG of the source, both on the same samples.

    The source model's own gap is not the doing of fine-tuning, so it is not corrected away
    (docs/definitions.md, "Estimators of γ").
    """

    title = "anchored"

    def __init__(self, on: SeenData = "train") -> None:
        super().__init__(on)

    def _compare(
        self, fine_tuned: SeenStatistics, source: SeenStatistics, partition: ClassPartition
    ) -> float:
        return _average_gap(fine_tuned, partition) - _average_gap(source, partition)


class MisrouteMatching(_Anchored):
    """Misroute matching: γ at which as many seen samples are sent to U as the source model sent there.

    γ is the r0-quantile of the margins m1, with r0 = P(m0 < 0) over the same samples. Use held-out samples:
    margins of samples that were trained on are overfit (docs/definitions.md, "Estimators of γ").
    """

    title = "misroute"

    def __init__(self, on: SeenData = "held_out") -> None:
        super().__init__(on)

    def _compare(
        self, fine_tuned: SeenStatistics, source: SeenStatistics, partition: ClassPartition
    ) -> float:
        return matching_quantile(fine_tuned.margin, float((source.margin < 0).double().mean()))


class SymmetricMisroute(_Anchored):
    """γ at which seen samples are sent to U as often as the source model's errors predict.

    Were the source model's errors spread evenly over the other classes, the share ``|U| / (|S| + |U| − 1)``
    of them would go to U. This estimate is steadier than counting those that do, as misroute matching does. A
    confusion of a seen with an absent class has two sides, of which fine-tuning trains one; so the rate falls
    by the mean of 1 and of the ratio of the errors inside F after and before fine-tuning. γ is the quantile
    of the held-out margins m1 at this rate (docs/definitions.md, "Estimators of γ").
    """

    title = "symmetric misroute"

    def __init__(self, on: SeenData = "held_out") -> None:
        super().__init__(on)

    def _compare(
        self, fine_tuned: SeenStatistics, source: SeenStatistics, partition: ClassPartition
    ) -> float:
        right = source.hit & (source.margin >= 0)
        to_absent = len(partition.absent) / max(len(partition.seen) + len(partition.absent) - 1, 1)
        before, after = (1 - float(model.hit.double().mean()) for model in (source, fine_tuned))
        trained_side = min(after / before, 1.0) if before else 1.0
        rate = (1 - float(right.double().mean())) * to_absent * (1 + trained_side) / 2
        return matching_quantile(fine_tuned.margin, rate)


class _Mean(_Anchored):
    """The mean of several calibrators on the same samples."""

    parts: tuple[type[_Anchored], ...]

    def __init__(self, on: SeenData = "held_out") -> None:
        super().__init__(on)
        self._parts = tuple(part(on) for part in self.parts)

    def _compare(
        self, fine_tuned: SeenStatistics, source: SeenStatistics, partition: ClassPartition
    ) -> float:
        return sum(part._compare(fine_tuned, source, partition) for part in self._parts) / len(self._parts)


class MixedAnchor(_Mean):
    """The mean of misroute matching and anchored ALG on the same samples.

    See docs/definitions.md, "Estimators of γ".
    """

    title = "mixed anchor"
    parts = (MisrouteMatching, AnchoredLogitGap)


class Committee(_Mean):
    """The mean of symmetric misroute, misroute matching and anchored ALG on the same samples.

    They err for different reasons, so that their mean errs less (docs/definitions.md, "Estimators of γ").
    """

    title = "committee"
    parts = (SymmetricMisroute, MisrouteMatching, AnchoredLogitGap)


def _average_gap(statistics: SeenStatistics, partition: ClassPartition) -> float:
    check_gap(partition)
    return float(statistics.gap.mean())


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name}={value!r}: choose from {', '.join(choices)}")
