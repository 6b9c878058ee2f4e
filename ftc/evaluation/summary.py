"""One evaluation of one model, by a pure function of numbers per sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ftc.calibrators import (
    Available,
    Calibration,
    Calibrator,
    Oracle,
    OracleEvidence,
    bootstrap_gamma,
    fit_all,
    reported_name,
)
from ftc.functional import (
    LogitSums,
    Outcomes,
    SeenAbsentCurve,
    accuracies,
    bootstrap_accuracies,
    curve_of_outcomes,
    probability_metrics,
)
from ftc.functional.accuracy import Average, Criterion
from ftc.functional.bootstrap import Interval, check_bootstrap
from ftc.metrics.scale import ScaleSummary
from ftc.partition import ClassPartition
from ftc.results import CURVE_FIELDS, StageRecord, none_if_nan, nullable


@dataclass(frozen=True)
class Bootstrap:
    """Settings of bootstrap intervals.

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
        title: the calibrator's name in print.
        calibration: γ with its provenance.
        metrics: numbers by name (docs/definitions.md, "Metrics" and "Probabilities").
        intervals: bootstrap intervals of metrics and of ``gamma``, (low, high); empty unless asked for.
    """

    title: str
    calibration: Calibration
    metrics: dict[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one model on one split.

    Attributes:
        epoch: epoch of the model, −1 for the source model.
        metrics: at γ = 0, numbers by name (docs/definitions.md, "Metrics" and "Probabilities"), ``ncm_…``
            among them where there is a gallery.
        calibrated: γ and accuracies by calibrator.
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
        """The number of evaluated samples by group of their label."""
        return self.curve.num_samples

    def scalars(self) -> dict[str, float]:
        """All scalars that apply, for loggers; those of calibrators as ``name/metric``."""
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


@dataclass(frozen=True)
class Measures:
    """Settings of the numbers that evaluations report.

    Attributes:
        top_k: values of k for accuracies; 1 must be among them.
        average: accuracies as means over samples, or over classes.
        bootstrap: settings of the intervals of γ̂, AUSUC and accuracies; None for no intervals.
        criterion: what γ* is the best by.
    """

    top_k: tuple[int, ...] = (1,)
    average: Average = "sample"
    bootstrap: Bootstrap | None = None
    criterion: Criterion = "acc_all"


@dataclass(frozen=True)
class Evaluated:
    """The evaluated samples under one model, from streams or saved logits.

    Attributes:
        outcomes: outcomes of all samples.
        gap: mean of z over S \\ {y} minus mean over U \\ {y}, float64 (N,).
        scale: logit scales and histograms.
        sums: what the probabilities of all samples need beside their outcomes.
        ncm: outcomes of the nearest-class-mean classifier, None without a gallery.
        head: mean weight norm and mean bias of the head over S and over U; empty where no head was named.
        origin: whose labels these are, in words that results print.
        epoch: epoch of the model, −1 for the source model.
    """

    outcomes: Outcomes
    gap: Tensor
    scale: ScaleSummary
    sums: LogitSums
    ncm: Outcomes | None = None
    head: Mapping[str, float] = field(default_factory=dict)
    origin: str = "test labels"
    epoch: int = 0


def evaluate(
    evaluated: Evaluated,
    calibrators: Mapping[str, Calibrator[Any]],
    available: Available,
    partition: ClassPartition,
    measures: Measures,
    fitted: Mapping[str, Calibration] | None = None,
) -> Evaluation:
    """The `Evaluation` of one model, with every calibrator's γ, the oracle's included.

    Calibrators of the oracle lane are fitted on the evaluated samples. The oracle is added wherever samples
    of absent classes were evaluated, and of seen ones where the criterion wants both. AUSUC, U/U and the
    nearest-class-mean accuracies do not depend on γ; they are repeated for every calibrator so that each
    result stands on its own.

    Args:
        evaluated: the samples.
        calibrators: the calibrators by name.
        available: the evidence for the calibrators that are not oracles.
        partition: seen, absent and other columns.
        measures: settings of the report.
        fitted: γ of the calibrators that are not oracles, where they were fitted before (on another split);
            None fits them here.

    Raises:
        InputError: evidence that is missing or does not suffice, with the calibrator's name.
    """
    outcomes, average = evaluated.outcomes, measures.average

    def metrics_at(gamma: float) -> dict[str, float]:
        return {
            **accuracies(outcomes, partition, gamma, average),
            **probability_metrics(evaluated.sums, outcomes, partition, gamma),
            **shared,
        }

    curve = curve_of_outcomes(outcomes, partition, average)
    labels = OracleEvidence(evaluated.origin, outcomes, evaluated.gap, partition)
    available = replace(available, evaluated=labels)
    oracles = {name: c for name, c in calibrators.items() if c.lane == "oracle"}
    sizes = curve.num_samples
    if sizes["absent"] and (sizes["seen"] or measures.criterion == "acc_all"):
        oracles["oracle"] = Oracle(measures.criterion, average)
    everyone = {**calibrators, **oracles}
    if fitted is None:
        fitted = fit_all({name: c for name, c in calibrators.items() if c.lane != "oracle"}, available)
    calibrations = {**fitted, **fit_all(oracles, available)}
    titles = {reported_name(name, calibrator): calibrator.title for name, calibrator in everyone.items()}
    shared = {"ausuc": curve.ausuc, **_ncm_metrics(evaluated.ncm, partition, average)}
    evaluation = Evaluation(
        epoch=evaluated.epoch,
        metrics=metrics_at(0.0),
        calibrated={
            name: CalibratedAccuracies(titles[name], calibration, metrics_at(calibration.gamma))
            for name, calibration in calibrations.items()
        },
        curve=curve,
        scale=evaluated.scale,
        head=dict(evaluated.head),
    )
    if measures.bootstrap is None:
        return evaluation
    return _with_intervals(evaluation, outcomes, calibrators, available, partition, measures)


def _ncm_metrics(ncm: Outcomes | None, partition: ClassPartition, average: Average) -> dict[str, float]:
    """Metrics of the nearest-class-mean classifier as ``ncm_…``; none without a gallery."""
    if ncm is None:
        return {}
    found = accuracies(ncm, partition, average=average)
    found["ausuc"] = curve_of_outcomes(ncm, partition, average).ausuc
    return {f"ncm_{name}": value for name, value in found.items()}


def _with_intervals(
    evaluation: Evaluation,
    outcomes: Outcomes,
    calibrators: Mapping[str, Calibrator[Any]],
    available: Available,
    partition: ClassPartition,
    measures: Measures,
) -> Evaluation:
    """The same evaluation with bootstrap intervals.

    Intervals of accuracies hold γ̂ fixed and resample the evaluated samples; those of ``gamma`` resample the
    evidence that γ̂ was fitted on. The oracle's γ* has none, because it is not an estimate.
    """
    bootstrap, average = measures.bootstrap, measures.average
    assert bootstrap is not None
    arguments = (bootstrap.replicates, bootstrap.seed, bootstrap.confidence)
    estimators = {reported_name(name, calibrator): calibrator for name, calibrator in calibrators.items()}

    def intervals(name: str, gamma: float) -> dict[str, Interval]:
        found = bootstrap_accuracies(outcomes, partition, gamma, average, *arguments)
        calibrator = estimators.get(name)
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
    """The record of a model at γ = 0, with its curve, its logit scales and its head's norms."""
    return StageRecord.model_validate(
        {
            "gamma": 0.0,
            "uses": uses,
            "curve": {name: _listed(getattr(evaluation.curve, name)) for name in CURVE_FIELDS},
            "intervals": _nullable_intervals(evaluation.intervals),
            **nullable({**evaluation.metrics, **evaluation.scale.scales, **evaluation.head}),
        }
    )


def calibrated_record(result: CalibratedAccuracies) -> StageRecord:
    """The record of a calibrator."""
    calibration = result.calibration
    return StageRecord.model_validate(
        {
            "title": result.title,
            "gamma": calibration.gamma,
            "uses": calibration.uses,
            "lane": calibration.lane,
            "details": dict(calibration.details),
            "intervals": _nullable_intervals(result.intervals),
            **nullable(result.metrics),
        }
    )


def _nullable_intervals(
    intervals: Mapping[str, Interval],
) -> dict[str, tuple[float | None, float | None]]:
    return {name: (none_if_nan(low), none_if_nan(high)) for name, (low, high) in intervals.items()}


def _listed(values: Tensor) -> list[float | None]:
    return [none_if_nan(value) for value in values.tolist()]
