"""What one evaluation of one model says: a pure function of per-sample numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ftc.calibrators import Calibration
from ftc.functional import Outcomes, SeenAbsentCurve, accuracies, curve_of_outcomes
from ftc.functional.accuracy import Average
from ftc.functional.outcomes import ABSENT, OTHERS, SEEN, label_groups
from ftc.metrics.scale import ScaleSummary
from ftc.partition import ClassPartition


@dataclass(frozen=True)
class CalibratedAccuracies:
    """A calibrator's γ and the accuracies it leads to, fractions under PROTOCOL's names."""

    calibration: Calibration
    metrics: dict[str, float]


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
        num_samples: evaluated samples by group of their label.
    """

    epoch: int
    metrics: dict[str, float]
    calibrated: dict[str, CalibratedAccuracies]
    curve: SeenAbsentCurve
    scale: ScaleSummary
    head: dict[str, float]
    num_samples: dict[str, int]

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
    groups = label_groups(outcomes.target, partition)
    codes = {"seen": SEEN, "absent": ABSENT, "others": OTHERS}
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
        num_samples={name: int((groups == code).sum()) for name, code in codes.items()},
    )
