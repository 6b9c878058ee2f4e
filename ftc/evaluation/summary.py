"""What one evaluation of one model says: a pure function of per-sample numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ftc.calibrators import Available, Calibration, Calibrator, bootstrap_gamma, reported_name
from ftc.functional import Outcomes, SeenAbsentCurve, accuracies, bootstrap_accuracies, curve_of_outcomes
from ftc.functional.accuracy import Average
from ftc.functional.bootstrap import Interval, check_bootstrap
from ftc.metrics.scale import ScaleSummary
from ftc.partition import ClassPartition
from ftc.results import CURVE_FIELDS, StageRecord, none_if_nan, nullable


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        replicates: how often the samples are drawn anew, with replacement.
        confidence: share of the replicates inside an interval.
        seed: the same seed gives the same intervals.

    Raises:
        InputError: fewer than two replicates, or a confidence outside (0, 1).
    """

    replicates: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_bootstrap(self.replicates, self.confidence)


@dataclass(frozen=True)
class CalibratedAccuracies:
    """A calibrator's γ and the accuracies it leads to.

    Attributes:
        calibration: γ with its provenance.
        metrics: fractions under PROTOCOL's names.
        intervals: bootstrap intervals of metrics and of ``gamma``, (low, high); empty unless asked for.
    """

    calibration: Calibration
    metrics: dict[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """One model on one split.

    Attributes:
        epoch: −1 for the source model.
        metrics: at γ = 0, fractions under PROTOCOL's names, ``ncm_…`` among them where there is a gallery.
        calibrated: by calibrator.
        curve: the exact seen–absent curve.
        scale: logit scales and histograms.
        head: mean weight norm and mean bias of the head over S and over U; empty where no head was named.
        intervals: bootstrap intervals of metrics at γ = 0, (low, high); empty unless asked for.
    """

    epoch: int
    metrics: dict[str, float]
    calibrated: dict[str, CalibratedAccuracies]
    curve: SeenAbsentCurve
    scale: ScaleSummary
    head: dict[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def num_samples(self) -> dict[str, int]:
        """Evaluated samples by group of their label."""
        return self.curve.num_samples

    def scalars(self) -> dict[str, float]:
        """Everything that is one number and applies, for loggers; calibrated ones as ``name/metric``."""
        return {name: value for name, value in self._all_scalars() if not math.isnan(value)}

    def _all_scalars(self) -> Iterator[tuple[str, float]]:
        yield "epoch", float(self.epoch)
        yield from self.metrics.items()
        yield from self.scale.scales.items()
        yield from self.head.items()
        for name, result in self.calibrated.items():
            yield f"{name}/gamma", result.calibration.gamma
            for metric, value in result.metrics.items():
                if not metric.startswith("ncm_"):
                    yield f"{name}/{metric}", value


def evaluate_outcomes(
    epoch: int,
    outcomes: Outcomes,
    curve: SeenAbsentCurve,
    ncm_outcomes: Outcomes | None,
    calibrations: Mapping[str, Calibration],
    scale: ScaleSummary,
    head: dict[str, float],
    partition: ClassPartition,
    average: Average = "sample",
) -> Evaluation:
    """Assemble an `Evaluation`.

    AUSUC, U/U and the nearest-class-mean accuracies do not depend on γ; they are repeated for every
    calibrator so that each result stands on its own.
    """
    shared = {"ausuc": curve.ausuc}
    if ncm_outcomes is not None:
        ncm = accuracies(ncm_outcomes, partition, average=average)
        ncm["ausuc"] = curve_of_outcomes(ncm_outcomes, partition, average).ausuc
        shared |= {f"ncm_{name}": value for name, value in ncm.items()}
    return Evaluation(
        epoch=epoch,
        metrics={**accuracies(outcomes, partition, 0.0, average), **shared},
        calibrated={
            name: CalibratedAccuracies(
                calibration, {**accuracies(outcomes, partition, calibration.gamma, average), **shared}
            )
            for name, calibration in calibrations.items()
        },
        curve=curve,
        scale=scale,
        head=head,
    )


def with_intervals(
    evaluation: Evaluation,
    outcomes: Outcomes,
    calibrators: Mapping[str, Calibrator[Any]],
    available: Available,
    bootstrap: Bootstrap,
    partition: ClassPartition,
    average: Average = "sample",
) -> Evaluation:
    """The same evaluation with bootstrap intervals.

    Those of accuracies hold γ̂ and resample the evaluated samples; those of ``gamma`` resample what γ̂ was
    fitted on. The oracle's γ* has none: it is no estimate.

    Args:
        evaluation: of these outcomes.
        outcomes: of the evaluated samples.
        calibrators: by name, as fitted.
        available: what they were fitted on.
        bootstrap: how.
        partition: seen, absent and other columns.
        average: over samples, or over classes.
    """
    arguments = (bootstrap.replicates, bootstrap.seed, bootstrap.confidence)
    fitted = {reported_name(name, calibrator): calibrator for name, calibrator in calibrators.items()}

    def intervals(name: str, gamma: float) -> dict[str, Interval]:
        found = bootstrap_accuracies(outcomes, partition, gamma, average, *arguments)
        calibrator = fitted.get(name)
        evidence = None if calibrator is None else available.of(calibrator)
        if calibrator is not None and evidence is not None:
            found["gamma"] = bootstrap_gamma(calibrator, evidence, *arguments)
        return found

    calibrated = {
        name: replace(result, intervals=intervals(name, result.calibration.gamma))
        for name, result in evaluation.calibrated.items()
    }
    return replace(evaluation, calibrated=calibrated, intervals=intervals("", 0.0))


def fine_tuned_record(evaluation: Evaluation, uses: tuple[str, ...]) -> StageRecord:
    """The row of a model at γ = 0, with its curve."""
    return StageRecord(
        0.0,
        uses,
        nullable(evaluation.metrics),
        {name: _listed(getattr(evaluation.curve, name)) for name in CURVE_FIELDS},
        intervals=_nullable_intervals(evaluation.intervals),
    )


def calibrated_record(result: CalibratedAccuracies) -> StageRecord:
    """The row of a calibrator."""
    calibration = result.calibration
    return StageRecord(
        calibration.gamma,
        calibration.uses,
        nullable(result.metrics),
        lane=calibration.lane,
        details=dict(calibration.details),
        intervals=_nullable_intervals(result.intervals),
    )


def _nullable_intervals(intervals: Mapping[str, Interval]) -> dict[str, list[float | None]]:
    return {name: [none_if_nan(low), none_if_nan(high)] for name, (low, high) in intervals.items()}


def _listed(values: Tensor) -> list[float | None]:
    return [none_if_nan(value) for value in values.tolist()]
