"""``python -m ftc.compare``: the gap of each estimator of γ to the oracle, over many finished runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from ftc.calibrators import (
    Available,
    Calibrator,
    ExpectedAccuracy,
    MarginMixture,
    Oracle,
    OracleEvidence,
    PriorMatching,
    SeenEvidence,
    UnlabelledEvidence,
    fit_all,
)
from ftc.config.commands import CompareConfig
from ftc.errors import InputError
from ftc.functional import curve_of_outcomes
from ftc.functional.inputs import ABSENT, SEEN, label_groups
from ftc.functional.statistics import keep_seen
from ftc.models import load_tensors
from ftc.partition import ClassPartition
from ftc.reporting.names import stage_title
from ftc.results import CONFIG_FILE, FILE_NAME, LANES, METRICS, Lane
from ftc.runs.finished import NUM_SEEN, FinishedRun

# How many pools with another share of absent-class images are drawn and averaged for each run.
DRAWS = 3

# The keys that runs are grouped by unless others are asked for.
BY = ("name", NUM_SEEN)


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


def read_runs(folder: Path) -> list[FinishedRun]:
    """Read all finished runs below a folder that have an oracle; a line on stderr tells of the others.

    Raises:
        InputError: there is no such run, or a file of one is damaged.
    """
    runs: list[FinishedRun] = []
    without: list[FinishedRun] = []
    for path in sorted(folder.rglob(FILE_NAME)):
        config = path.parent / CONFIG_FILE
        if config.is_file():
            run = FinishedRun.read(path.parent)
            (runs if run.oracle is not None else without).append(run)
    if without:
        print(
            f"{len(without)} runs such as {without[0].folder} are left out: the evaluated samples are "
            "not of both groups, so that there is no oracle",
            file=sys.stderr,
        )
    if not runs:
        raise InputError(f"runs={folder}: no finished run with an oracle below it; name a sweep's folder")
    # Partitions that were not drawn have no seed; they come first.
    return sorted(
        runs,
        key=lambda run: (run.record.experiment, len(run.partition.seen), run.partition_seed or 0),
    )


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


def refitted_gaps(runs: Iterable[FinishedRun], shift: float | None = None) -> list[Gap]:
    """The gaps of the unlabelled lane's scalar estimators, refitted with the test images as the pool.

    Without a shift ``val_oracle`` is listed as well, the best γ by all labels of the validation images, where
    absent classes are among them. Its gap shows how close any γ can come to a γ* that is chosen on the
    images it is measured on.

    Args:
        runs: runs with saved predictions.
        shift: change of the pool's share of absent-class images, made by leaving images out at random, so
            that it is no longer |U| / (|S| + |U|); None for a pool of all test images. γ is always evaluated
            on all of them.

    Raises:
        InputError: no such share is possible.
    """
    gaps = []
    for run in runs:
        saved, p, criterion = _predictions(run), run.partition, run.record.criterion
        calibrators: dict[str, Calibrator[Any]] = {
            "prior_matched": PriorMatching(),
            "prior_estimated": PriorMatching("estimate"),
            "margin_mixture": MarginMixture(criterion=criterion),
            "expected_accuracy": ExpectedAccuracy(criterion=criterion),
        }
        logits, target = saved["fine_tuned/test/logits"], saved["fine_tuned/test/target"]
        source = saved["source/test/logits"]
        kept, labels = keep_seen(saved["fine_tuned/val/logits"], saved["fine_tuned/val/target"], p)
        before, _ = keep_seen(saved["source/val/logits"], saved["source/val/target"], p)
        seen = SeenEvidence.from_logits(kept, labels, p, before, "seen val")
        evaluated = OracleEvidence.from_logits(logits, target, p)
        curve = curve_of_outcomes(evaluated.outcomes, p)
        best = curve.at(Oracle(criterion).fit(evaluated).gamma)[criterion]
        if shift is None and bool(torch.isin(saved["fine_tuned/val/target"], torch.tensor(p.absent)).any()):
            validation = OracleEvidence.from_logits(
                saved["fine_tuned/val/logits"], saved["fine_tuned/val/target"], p
            )
            reached = curve.at(Oracle(criterion).fit(validation).gamma)[criterion]
            title = "oracle on validation labels"
            gaps.append(Gap("val_oracle", title, run, 100 * (best - reached)))
        found: dict[str, list[float]] = {name: [] for name in calibrators}
        for draw in range(1 if shift is None else DRAWS):
            rows = torch.arange(len(target)) if shift is None else _shifted(target, p, shift, draw)
            pool = UnlabelledEvidence.from_logits(logits[rows], p, source[rows], "unlabelled test", seen)
            for name, calibration in fit_all(calibrators, Available(unlabelled=pool)).items():
                found[name].append(100 * (best - curve.at(calibration.gamma)[criterion]))
        gaps += [
            Gap(name, calibrators[name].title, run, sum(values) / len(values))
            for name, values in found.items()
        ]
    return gaps


def _predictions(run: FinishedRun) -> dict[str, Tensor]:
    """The saved predictions of a run.

    Raises:
        InputError: some are missing, as those of V are where nothing was held out.
    """
    path = run.folder / "predictions.safetensors"
    saved = load_tensors(path)
    wanted = [
        f"{stage}/{split}/{field}"
        for stage in ("source", "fine_tuned")
        for split in ("val", "test")
        for field in ("logits", "target")
    ]
    missing = [name for name in wanted if name not in saved]
    if missing:
        raise InputError(f"{path}: has no {missing[0]}, which refit=true needs; leave the run or refit out")
    return saved


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


def markdown_table(gaps: Sequence[Gap], chosen_on: Sequence[int], by: Sequence[str] = BY) -> str:
    """A Markdown table of mean (worst) gaps by estimator, in percentage points.

    Runs on the partitions that estimators were chosen on, if any, have a column of their own; all others are
    reported, together and by every value of each key in which they differ.

    Args:
        gaps: the gaps of one lane.
        chosen_on: partition seeds that estimators and constants were chosen on.
        by: keys to group by, see `FinishedRun.value`.
    """
    chosen = [gap for gap in gaps if gap.run.partition_seed in chosen_on]
    reported = [gap for gap in gaps if gap.run.partition_seed not in chosen_on]
    columns = {**({"chosen on": chosen} if chosen else {}), "**reported**": reported}
    for key in by:
        values = dict.fromkeys(gap.run.value(key) for gap in gaps)
        if len(values) > 1:
            for value in values:
                columns[_heading(key, value)] = [gap for gap in reported if gap.run.value(key) == value]
    runs = {name: {id(gap.run) for gap in column} for name, column in columns.items()}
    lines = [
        "| estimator | " + " | ".join(f"{name} ({len(runs[name])})" for name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for estimator, title in {gap.estimator: gap.title for gap in gaps}.items():
        name = title if estimator == "fine_tuned" else f"{title} (`{estimator}`)"
        cells = (_cell([gap.points for gap in c if gap.estimator == estimator]) for c in columns.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _heading(key: str, value: str | None) -> str:
    """The title of the column of a value: ``digits``, ``5 seen``, ``target=Cl``."""
    if key == NUM_SEEN:
        return f"{value} seen"
    value = "null" if value is None else value
    return value if key == "name" else f"{key.rpartition('.')[-1]}={value}"


def _cell(points: list[float]) -> str:
    if not points:
        return "–"
    return f"{sum(points) / len(points):.2f} ({max(points):.1f})".replace("-", "−")


def compare(config: CompareConfig) -> dict[str, Any]:
    """Print the report in Markdown, section by section.

    Returns:
        An empty dict: there are no scalars for a sweep's table.

    Raises:
        InputError: see `read_runs`.
    """
    for section in _sections(config):
        print(section)
    return {}


def _sections(config: CompareConfig) -> Iterator[str]:
    """The sections of the report, in Markdown.

    Raises:
        InputError: see `read_runs`.
    """
    runs = read_runs(Path(config.runs))
    for key in config.by:
        if all(run.value(key) is None for run in runs):
            raise InputError(f"by={key}: no run's config.yaml has a value of it; name a key, or {NUM_SEEN}")
    # Gaps by different criteria do not compare.
    for criterion in dict.fromkeys(run.record.criterion for run in runs):
        unit = "" if criterion == "acc_all" else f": gaps in {METRICS[criterion]}"
        for title, gaps in _tables(config, [run for run in runs if run.record.criterion == criterion]):
            yield f"### {title}{unit}\n"
            yield markdown_table(gaps, config.chosen_on, config.by) + "\n"


def _tables(config: CompareConfig, runs: list[FinishedRun]) -> Iterator[tuple[str, list[Gap]]]:
    """Titles and gaps of the tables of runs that share a criterion."""
    for lane, title in LANES.items():
        if lane != "oracle" and any(run.record.lane(lane) for run in runs):
            yield f"{title[0].upper()}{title[1:]}", recorded_gaps(runs, lane)
    if config.refit:
        yield "The same with the test images as the pool", refitted_gaps(runs)
        for shift in config.shifts:
            signed = f"{shift:+g}".replace("-", "−")
            yield f"Pool of test images, share of absent-class images {signed}", refitted_gaps(runs, shift)
