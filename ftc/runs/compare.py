"""``python -m ftc.compare``: the gap of each estimator of γ to the oracle, over many finished runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from ftc.config.reports import CompareConfig, ViewConfig
from ftc.errors import InputError
from ftc.reporting.names import lane_title, stage_title
from ftc.reporting.table import Cell, Grid, mean, mean_difference
from ftc.results import LANES, METRICS
from ftc.runs.collect import collect
from ftc.runs.finished import NUM_SEEN, FinishedRun
from ftc.runs.gaps import Gap, floor_gaps, recorded_gaps, refitted_gaps
from ftc.runs.method_tables import method_tables

# The keys that runs are grouped by unless others are asked for.
BY = ("name", NUM_SEEN)

# The columns of the table of scores, beside gaps.
_SCORES = ("acc_all", "acc_seen", "acc_absent", "harmonic", "ausuc")


def read_runs(folder: Path) -> list[FinishedRun]:
    """All finished runs below a folder that have an oracle; lines on stderr tell of the others.

    Raises:
        InputError: there is no such run.
    """
    found = collect([folder])
    for left in found.left_out:
        print(f"{left.name} is left out: {left.reason}", file=sys.stderr)
    return with_oracle(found.runs)


def with_oracle(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The runs that have an oracle; a line on stderr tells of the others.

    Raises:
        InputError: no run has one.
    """
    without = [run for run in runs if run.oracle is None]
    if len(without) == len(runs):
        raise InputError(f"runs={without[0].folder}: has no oracle, nor has any other; name a sweep's folder")
    if without:
        print(
            f"{len(without)} runs such as {without[0].folder} are left out: the evaluated samples are "
            "not of both groups, so that there is no oracle",
            file=sys.stderr,
        )
    return [run for run in runs if run.oracle is not None]


def gap_table(title: str, gaps: Sequence[Gap], chosen_on: Sequence[int], by: Sequence[str] = BY) -> Grid:
    """A table of mean (worst) gaps by estimator, in percentage points.

    Runs on the partitions that estimators were chosen on, if any, have a column of their own; all others are
    reported, together and by every value of each key in which they differ.

    Args:
        title: its title.
        gaps: the gaps of one lane.
        chosen_on: partition seeds that estimators and constants were chosen on.
        by: keys to group by, see `FinishedRun.value`.
    """
    chosen = [gap for gap in gaps if gap.run.partition_seed in chosen_on]
    reported = [gap for gap in gaps if gap.run.partition_seed not in chosen_on]
    columns = {**({"chosen on": chosen} if chosen else {}), "reported": reported}
    for key in by:
        values = dict.fromkeys(gap.run.value(key) for gap in gaps)
        if len(values) > 1:
            for value in values:
                columns[_heading(key, value)] = [gap for gap in reported if gap.run.value(key) == value]
    runs = {name: {id(gap.run) for gap in column} for name, column in columns.items()}
    lines: list[tuple[Cell | str, ...]] = []
    for estimator, name in {gap.estimator: gap.title for gap in gaps}.items():
        label = name if estimator == "fine_tuned" else f"{name} (`{estimator}`)"
        cells = (_cell([gap.points for gap in c if gap.estimator == estimator]) for c in columns.values())
        lines.append((label, *cells))
    header = ("estimator", *(f"{name} ({len(runs[name])})" for name in columns))
    return Grid.of_texts(title, header, lines)


def _heading(key: str, value: str | None) -> str:
    """The title of the column of a value: ``digits``, ``5 seen``, ``target=Cl``."""
    if key == NUM_SEEN:
        return f"{value} seen"
    value = "null" if value is None else value
    return value if key == "name" else f"{key.rpartition('.')[-1]}={value}"


def _cell(points: list[float]) -> Cell:
    if not points:
        return Cell("–")
    numbers = {"mean": sum(points) / len(points), "worst": max(points), "n": len(points)}
    text = f"{numbers['mean']:.2f} ({numbers['worst']:.1f})".replace("-", "−")
    return Cell(text, numbers, "points")


def compare(config: CompareConfig) -> dict[str, Any]:
    """Print the tables in Markdown.

    Returns:
        An empty dict: there are no scalars for a sweep's table.

    Raises:
        InputError: see `comparison`.
    """
    for grid in comparison(read_runs(Path(config.runs)), config, config.methods):
        print(f"### {grid.title}\n\n{grid.markdown()}\n")
    return {}


def comparison(runs: Sequence[FinishedRun], config: ViewConfig, methods: bool) -> Iterator[Grid]:
    """The tables of estimators of γ, or of methods, those of runs with another criterion apart.

    Args:
        runs: runs with an oracle.
        config: what the tables show.
        methods: whether they are those of methods.

    Raises:
        InputError: no run has a value of a key in ``by``; or see `refitted_gaps` and `method_tables`.
    """
    for key in config.by:
        if all(run.value(key) is None for run in runs):
            raise InputError(f"by={key}: no run's config.yaml has a value of it; name a key, or {NUM_SEEN}")
    # Gaps by different criteria do not compare.
    for criterion in dict.fromkeys(run.record.criterion for run in runs):
        unit = "" if criterion == "acc_all" else f": gaps in {METRICS[criterion]}"
        alike = [run for run in runs if run.record.criterion == criterion]
        for grid in (_of_methods if methods else _of_estimators)(config, alike):
            yield evolve(grid, title=f"{grid.title}{unit}")


def scores_table(title: str, runs: Sequence[FinishedRun]) -> Grid:
    """A table of mean scores by stage, in percent, and how far each is ahead of the oracle.

    The last columns are the mean of the paired differences by the runs' criterion, in points, with its
    standard error over the runs, and in how many runs the stage is ahead. A stage that some of the runs lack
    is left out.
    """
    rows = [dict(run.record.rows()) for run in runs]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    header = ("", *(METRICS[name] for name in _SCORES), "to the oracle", "runs ahead")
    lines: list[tuple[Cell | str, ...]] = []
    for name in names:
        stages = [row[name] for row in rows]
        columns = ([stage.metrics.get(score) for stage in stages] for score in _SCORES)
        cells = [Cell("–") if None in c else mean([100 * (value or 0.0) for value in c]) for c in columns]
        criterion = runs[0].record.criterion
        ahead = [
            100 * ((stage.metrics[criterion] or 0.0) - (run.oracle or 0.0))
            for stage, run in zip(stages, runs, strict=True)
        ]
        better = sum(points > 0 for points in ahead)
        lines.append((stage_title(name, stages[0]), *cells, mean_difference(ahead), str(better)))
    return Grid.of_texts(title, header, lines)


def _of_methods(config: ViewConfig, runs: list[FinishedRun]) -> Iterator[Grid]:
    for chosen, note in ((True, " (chosen on)"), (False, "")):
        half = [run for run in runs if (run.partition_seed in config.chosen_on) is chosen]
        for grid in method_tables(half, config.by):
            yield evolve(grid, title=f"{grid.title}{note}")


def _of_estimators(config: ViewConfig, runs: list[FinishedRun]) -> Iterator[Grid]:
    def table(title: str, gaps: list[Gap]) -> Grid:
        return gap_table(title, gaps, config.chosen_on, config.by)

    if config.scores:
        reported = [run for run in runs if run.partition_seed not in config.chosen_on]
        for name in dict.fromkeys(run.record.experiment for run in reported):
            of_name = [run for run in reported if run.record.experiment == name]
            yield scores_table(f"{name}: means of {len(of_name)} reported runs", of_name)
    floor = floor_gaps(runs)
    for lane in LANES:
        if lane != "oracle" and any(run.record.lane(lane) for run in runs):
            yield table(lane_title(lane), recorded_gaps(runs, lane) + floor)
    if config.refit:
        allowed = config.allow_targets
        yield table("The same with the test images as the pool", refitted_gaps(runs, allowed=allowed) + floor)
        for shift in config.shifts:
            change = f"{shift:+g}".replace("-", "−")
            title = f"Pool of test images, share of absent-class images {change}"
            yield table(title, refitted_gaps(runs, shift, allowed))
