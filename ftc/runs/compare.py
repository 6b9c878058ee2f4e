"""``python -m ftc.compare``: the gap of each estimator of γ to the oracle, over many finished runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ftc.config.commands import CompareConfig
from ftc.errors import InputError
from ftc.reporting.markdown import markdown, mean, mean_difference
from ftc.reporting.names import stage_title
from ftc.results import CONFIG_FILE, FILE_NAME, LANES, METRICS
from ftc.runs.finished import NUM_SEEN, FinishedRun
from ftc.runs.gaps import Gap, floor_gaps, recorded_gaps, refitted_gaps
from ftc.runs.method_tables import method_tables

# The keys that runs are grouped by unless others are asked for.
BY = ("name", NUM_SEEN)

# The columns of the table of scores, beside gaps.
_SCORES = ("acc_all", "acc_seen", "acc_absent", "harmonic", "ausuc")


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
        for title, table in _tables(config, [run for run in runs if run.record.criterion == criterion]):
            yield f"### {title}{unit}\n"
            yield table + "\n"


def scores_table(runs: Sequence[FinishedRun]) -> str:
    """A Markdown table of mean scores by stage, in percent, and how far each is ahead of the oracle.

    The last columns are the mean of the paired differences by the runs' criterion, in points, with its
    standard error over the runs, and in how many runs the stage is ahead. A stage that some of the runs lack
    is left out.
    """
    rows = [dict(run.record.rows()) for run in runs]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    header = ("", *(METRICS[name] for name in _SCORES), "to the oracle", "runs ahead")
    lines = []
    for name in names:
        stages = [row[name] for row in rows]
        columns = ([stage.metrics.get(score) for stage in stages] for score in _SCORES)
        cells = ["–" if None in c else mean([100 * (value or 0.0) for value in c]) for c in columns]
        criterion = runs[0].record.criterion
        ahead = [
            100 * ((stage.metrics[criterion] or 0.0) - (run.oracle or 0.0))
            for stage, run in zip(stages, runs, strict=True)
        ]
        better = sum(points > 0 for points in ahead)
        lines.append((stage_title(name, stages[0]), *cells, mean_difference(ahead), str(better)))
    return markdown(header, lines)


def _tables(config: CompareConfig, runs: list[FinishedRun]) -> Iterator[tuple[str, str]]:
    """Titles and tables of runs that share a criterion."""

    def table(gaps: list[Gap]) -> str:
        return markdown_table(gaps, config.chosen_on, config.by)

    if config.methods:
        halves = {True: " (chosen on)", False: ""}
        for chosen, note in halves.items():
            half = [run for run in runs if (run.partition_seed in config.chosen_on) is chosen]
            for title, text in method_tables(half, config.by):
                yield f"{title}{note}", text
        return
    if config.scores:
        reported = [run for run in runs if run.partition_seed not in config.chosen_on]
        for name in dict.fromkeys(run.record.experiment for run in reported):
            of_name = [run for run in reported if run.record.experiment == name]
            yield f"{name}: means of {len(of_name)} reported runs", scores_table(of_name)
    floor = floor_gaps(runs)
    for lane, title in LANES.items():
        if lane != "oracle" and any(run.record.lane(lane) for run in runs):
            yield f"{title[0].upper()}{title[1:]}", table(recorded_gaps(runs, lane) + floor)
    if config.refit:
        allowed = config.allow_targets
        yield "The same with the test images as the pool", table(refitted_gaps(runs, allowed=allowed) + floor)
        for shift in config.shifts:
            signed = f"{shift:+g}".replace("-", "−")
            title = f"Pool of test images, share of absent-class images {signed}"
            yield title, table(refitted_gaps(runs, shift, allowed))
