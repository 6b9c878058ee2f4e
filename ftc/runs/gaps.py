"""Gaps of estimators to the oracle: recorded ones, those of refits on other pools, and the floor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from ftc.assembly.instantiate import make
from ftc.calibrators import (
    Available,
    Calibrator,
    FeatureEvidence,
    LinearHead,
    Oracle,
    OracleEvidence,
    SeenEvidence,
    SeenFeatures,
    UnlabelledEvidence,
    fit_all,
)
from ftc.config.targets import check_targets
from ftc.errors import InputError
from ftc.export.bundle import FINE_TUNED_WEIGHTS, SOURCE_WEIGHTS
from ftc.functional import SeenAbsentCurve, curve_of_outcomes, reduce_logits
from ftc.functional.inputs import ABSENT, SEEN, label_groups
from ftc.functional.statistics import keep_seen
from ftc.models import load_metadata, load_tensors
from ftc.partition import ClassPartition
from ftc.reporting.names import stage_title
from ftc.results import Lane
from ftc.runs.finished import FinishedRun, SavedOutputs

# How many pools with another share of absent-class images are drawn and averaged for each run.
DRAWS = 3

# How often the test images are halved at random to measure the floor.
HALVES = 20


@dataclass(frozen=True)
class Gap:
    """The gap of one estimator in one run, see docs/definitions.md, "Estimators of γ".

    Attributes:
        estimator: the estimator's name in the run.
        title: the estimator's printed name.
        run: the run.
        points: the score at γ* minus the score at γ̂, by the run's criterion, in percentage points.
    """

    estimator: str
    title: str
    run: FinishedRun
    points: float


def recorded_gaps(runs: Iterable[FinishedRun], lane: Lane) -> list[Gap]:
    """The gaps of a lane's estimators, and of γ = 0, as the runs recorded them."""
    gaps = []
    for run in runs:
        stages = {"fine_tuned": run.record.stages.fine_tuned, **run.record.lane(lane)}
        best = run.oracle
        for name, stage in stages.items():
            score = stage.metrics.get(run.record.criterion)
            if best is None or score is None:
                continue
            title = "γ = 0" if stage.lane is None else stage_title(name, stage)
            gaps.append(Gap(name, title, run, 100 * (best - score)))
    return gaps


def floor_gaps(runs: Iterable[FinishedRun]) -> list[Gap]:
    """The floor: γ chosen with labels on a random half of the test images, measured on the other half.

    Its gap is to the other half's own best γ, mean over draws. γ* is chosen on the images that it is measured
    on; no estimator can be told from one that knows labels where its gap is smaller than this.
    """
    gaps = []
    for run in runs:
        if not run.keeps_outputs:
            continue  # ftc.calibrate keeps none
        saved, p, average = run.outputs(), run.partition, run.calibration.average
        stage = run.record.evaluated
        logits, target = saved.of(stage, "test", "logits"), saved.of(stage, "test", "target")
        outcomes, criterion, lost = reduce_logits(logits, target, p), run.record.criterion, []
        for draw in range(HALVES):
            order = torch.randperm(len(target), generator=Generator().manual_seed(draw))
            one, other = (
                curve_of_outcomes(outcomes.rows(rows.sort().values), p, average)
                for rows in order.tensor_split(2)
            )
            if min(one.num_samples["absent"], other.num_samples["absent"]):
                best, chosen = (other.at(curve.best(criterion))[criterion] for curve in (other, one))
                lost.append(100 * (best - chosen))
        if lost:
            title = "the floor: γ* of a random half, on the other"
            gaps.append(Gap("floor", title, run, sum(lost) / len(lost)))
    return gaps


def refitted_gaps(
    runs: Iterable[FinishedRun], shift: float | None = None, allowed: Iterable[str] = ()
) -> list[Gap]:
    """The gaps of the runs' estimators of the unlabelled lane, refitted with the test images as the pool.

    Without a shift ``val_oracle`` is listed as well, the best γ by all labels of the validation images, where
    absent classes are among them.

    Args:
        runs: runs with saved predictions.
        shift: change of the pool's share of absent-class images, made by leaving images out at random, so
            that it is no longer ``|U| / (|S| + |U|)``; None for a pool of all test images. γ is always
            evaluated on all of them.
        allowed: packages whose code a run's calibrators may be, see `ftc.config.targets.check_targets`.

    Raises:
        InputError: no such share is possible, or a run's file lacks what a refit needs.
    """
    gaps = []
    for run in runs:
        saved, p, criterion = run.outputs(), run.partition, run.record.criterion
        target = saved.of("fine_tuned", "test", "target")
        curve = _curve(saved.of("fine_tuned", "test", "logits"), target, run)
        best = curve.at(curve.best(criterion))[criterion]
        if shift is None and bool(
            torch.isin(saved.of("fine_tuned", "val", "target"), torch.tensor(p.absent)).any()
        ):
            validation = OracleEvidence.from_logits(
                saved.of("fine_tuned", "val", "logits"), saved.of("fine_tuned", "val", "target"), p
            )
            reached = curve.at(Oracle(criterion, run.calibration.average).fit(validation).gamma)[criterion]
            gaps.append(Gap("val_oracle", "oracle on validation labels", run, 100 * (best - reached)))
        everyone = torch.arange(len(target))
        draws = [everyone] if shift is None else [_shifted(target, p, shift, n) for n in range(DRAWS)]
        for name, calibrator in _unlabelled(run, allowed).items():
            model = _Model.of(run, saved, name, calibrator)
            scores = [model.refitted(name, calibrator, rows)[criterion] for rows in draws]
            gaps.append(Gap(name, calibrator.title, run, 100 * (best - sum(scores) / len(scores))))
    return gaps


def _unlabelled(run: FinishedRun, allowed: Iterable[str]) -> dict[str, Calibrator[Any]]:
    """The run's calibrators of the unlabelled lane, by name."""
    check_targets({"calibration": run.calibration.model_dump()}, list(allowed))
    nodes = run.calibration.calibrators
    return {
        name: make(f"calibration.calibrators.{name}", nodes[name]) for name in run.record.lane("unlabelled")
    }


@dataclass(frozen=True)
class _Model:
    """The model that a calibrator is fitted on, before the calibrator moves its head.

    Attributes:
        run: the run.
        saved: its outputs.
        stage: the name of its stage among them.
        head: its head; None for a calibrator that leaves it as it is.
    """

    run: FinishedRun
    saved: SavedOutputs
    stage: str
    head: LinearHead | None

    @classmethod
    def of(cls, run: FinishedRun, saved: SavedOutputs, name: str, calibrator: Calibrator[Any]) -> _Model:
        """The model with the weights that the calibrator took in its run."""
        folder, record = run.folder, run.record
        stage = "fine_tuned" if calibrator.weights is None else name
        if not calibrator.moves_head:
            return cls(run, saved, stage, None)
        weights = load_tensors(folder / FINE_TUNED_WEIGHTS)
        if calibrator.weights is not None:
            alpha = record.stages.calibrated[name].details["alpha"]
            weights = calibrator.weights.at(load_tensors(folder / SOURCE_WEIGHTS), weights, alpha)
        place = load_metadata(folder / FINE_TUNED_WEIGHTS)["head"]
        return cls(run, saved, stage, LinearHead.of(weights, place))

    def refitted(self, name: str, calibrator: Calibrator[Any], rows: Tensor) -> Mapping[str, float]:
        """The accuracies on all test images, with these rows of them as the pool."""
        p, of = self.run.partition, self.saved.of
        target = of("fine_tuned", "test", "target")
        logits, held_out = self._logits("test"), self._logits("val")
        labels = of("fine_tuned", "val", "target")
        before, _ = keep_seen(of("source", "val", "logits"), labels, p)
        seen = SeenEvidence.from_logits(*keep_seen(held_out, labels, p), p, before, "seen val")
        pool = UnlabelledEvidence.from_logits(
            logits[rows], p, of("source", "test", "logits")[rows], "unlabelled test", seen
        )
        features = None
        if self.head is not None:
            features = FeatureEvidence(
                pool.origin,
                self.head,
                p,
                pool=of(self.stage, "test", "features")[rows],
                train=self._seen("calibration"),
                held_out=self._seen("val"),
                unlabelled=pool,
            )
        fitted = fit_all({name: calibrator}, Available(unlabelled=pool, features=features))[name]
        if fitted.head is not None:
            logits = fitted.head.logits(of(self.stage, "test", "features")).float()
        return _curve(logits, target, self.run).at(fitted.gamma)

    def _logits(self, split: str) -> Tensor:
        # Logits of a stage are those behind its calibrator's head.
        if self.head is None:
            return self.saved.of(self.stage, split, "logits")
        return self.head.logits(self.saved.of(self.stage, split, "features")).float()

    def _seen(self, split: str) -> SeenFeatures:
        features, target = (self.saved.of(self.stage, split, field) for field in ("features", "target"))
        return SeenFeatures.kept(features, target, self.run.partition)


def _curve(logits: Tensor, target: Tensor, run: FinishedRun) -> SeenAbsentCurve:
    outcomes = reduce_logits(logits, target, run.partition)
    return curve_of_outcomes(outcomes, run.partition, run.calibration.average)


def _shifted(target: Tensor, partition: ClassPartition, shift: float, draw: int) -> Tensor:
    """Rows of a random subset whose share of absent-class images is that of all rows plus ``shift``."""
    groups = label_groups(target, partition)
    seen, absent = ((groups == code).nonzero()[:, 0] for code in (SEEN, ABSENT))
    share = len(absent) / (len(seen) + len(absent)) + shift
    if not 0 < share < 1:
        raise InputError(f"shift={shift}: leaves a share of absent-class images of {share:.2f}; choose less")
    generator = Generator().manual_seed(draw)
    seen, absent = (rows[torch.randperm(len(rows), generator=generator)] for rows in (seen, absent))
    # One group stays whole, since its slice ends beyond it; the other is cut to give the share.
    few_absent, few_seen = round(len(seen) * share / (1 - share)), round(len(absent) * (1 - share) / share)
    return torch.cat([seen[:few_seen], absent[:few_absent]]).sort().values
