"""Scores of groups of runs: means and spread, intervals, and paired differences to a chosen row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from attrs import evolve, frozen

from ftc.config.reports import ReportConfig
from ftc.errors import InputError
from ftc.reporting.figures import ScoreRow
from ftc.reporting.names import key_title, lane_title, stage_title
from ftc.reporting.statistics import Replication, bootstrap_mean, replication, sign_flip
from ftc.reporting.table import Cell, Grid, signed
from ftc.results import LANES, METRICS, Lane, StageRecord
from ftc.runs.finished import FinishedRun
from ftc.runs.groups import Group

STAGE = "stage"
# The unit of a run: its partition and the seed of its source model.
Unit = tuple[str, Any]
# Numbers of a row by unit and training seed.
_Numbers = dict[Unit, dict[Any, list[float]]]


@frozen(eq=False, slots=False)
class Row:
    """One row of the table of scores: a stage of a group's runs.

    Attributes:
        group: the group.
        stage: the stage's key.
        title: its name in print.
        lane: its lane; None for a model at γ = 0.
        bound: whether it looks at the labels of absent classes.
    """

    group: Group
    stage: str
    title: str
    lane: Lane | None
    bound: bool

    @property
    def place(self) -> dict[str, str]:
        """The row's values, its stage among them."""
        return {**self.group.values, STAGE: self.stage}

    @cached_property
    def stages(self) -> list[tuple[FinishedRun, StageRecord]]:
        """The runs that have the stage, and it."""
        found = ((run, dict(run.record.rows()).get(self.stage)) for run in self.group.runs)
        return [(run, stage) for run, stage in found if stage is not None]

    @cached_property
    def _replications(self) -> dict[str, Replication | None]:
        return {}

    def numbers(self, metric: str) -> _Numbers:
        """A metric, or ``gamma``, by unit and training seed; fractions, or logits."""
        found: _Numbers = {}
        for run, stage in self.stages:
            value = _value(stage, metric)
            if value is not None:
                found.setdefault(_unit(run), {}).setdefault(run.record.seed, []).append(value)
        return found

    def replication(self, metric: str) -> Replication | None:
        """The metric over partitions and seeds, in percent, or γ in logits; None where no run has it."""
        if metric not in self._replications:
            found, scale = self.numbers(metric), 1 if metric == "gamma" else 100
            by_unit = {str(u): [scale * fmean(v) for v in of_unit.values()] for u, of_unit in found.items()}
            self._replications[metric] = replication(by_unit) if found else None
        return self._replications[metric]


def _value(stage: StageRecord, metric: str) -> float | None:
    if metric == "gamma":
        return stage.gamma if stage.lane else None
    return stage.metrics.get(metric)


def _unit(run: FinishedRun) -> Unit:
    source = run.config.get("source")
    return run.record.partition.sha256, source.get("seed") if isinstance(source, Mapping) else None


def rows_of(groups: Sequence[Group]) -> list[Row]:
    """All rows: by group source, fine-tuned, calibrators lane by lane, oracles."""
    found = []
    for group in groups:
        named: dict[str, StageRecord] = {}
        for run in group.runs:
            named |= {name: stage for name, stage in run.record.rows() if name not in named}
        # The order of a record, whichever run a stage is found in first.
        lanes = [None, *LANES]
        for name, stage in sorted(named.items(), key=lambda item: lanes.index(item[1].lane)):
            method = group.runs[0].record.method or ""
            bound = stage.lane == "oracle" or (name != "source" and method.startswith("oracle"))
            title = stage_title(name, stage)
            found.append(Row(group, name, f"+ {title}" if stage.lane else title, stage.lane, bound))
    return found


def _shown(rows: Sequence[Row], stages: Sequence[str]) -> list[Row]:
    """The rows of the stages that are asked for, all where none is.

    Raises:
        InputError: no run has one of them.
    """
    known = {row.stage for row in rows}
    for name in stages:
        if name not in known:
            raise InputError(f"stages=[{name}]: no run has it; choose from {', '.join(sorted(known))}")
    return [row for row in rows if not stages or row.stage in stages]


def score_tables(groups: Sequence[Group], config: ReportConfig) -> Iterator[Grid]:
    """The tables of scores: for each lane one of means, one of intervals, and one of paired differences.

    Raises:
        InputError: a stage or a baseline that no run has.
    """
    everyone = rows_of(groups)
    rows = _shown(everyone, config.stages)
    metrics = [m for m in config.metrics if any(row.replication(m) for row in rows)]
    differ = _differences(everyone, config.baseline)
    found = [lane for lane in LANES if lane != "oracle" and any(row.lane == lane for row in rows)]
    lanes: list[Lane | None] = [*found] or [None]
    for lane in lanes:
        of_lane = [row for row in rows if row.lane in (None, lane, "oracle")]
        table = _Table(of_lane, metrics, "Scores" if lane is None else lane_title(lane))
        yield table.means()
        if not config.replicates:
            continue
        intervals = table.intervals(config)
        if intervals is not None:
            yield intervals
    for lane in lanes:
        of_lane = [row for row in rows if row.lane in (None, lane, "oracle")]
        compared = {id(row): other for row in of_lane if (other := differ(row)) is not None}
        table = _Table([row for row in of_lane if id(row) in compared], metrics, "")
        if compared:
            place = ", ".join(f"{key} = {value}" for key, value in config.baseline.items())
            title = f"Difference to {place}, paired, in points"
            yield table.differences(title if lane is None else f"{title}: {LANES[lane]}", compared)


@frozen
class _Table:
    """Rows and metrics of one table."""

    rows: Sequence[Row]
    metrics: Sequence[str]
    title: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Titles of the keys, as short as they can be told apart."""
        keys = list(self.rows[0].group.values) if self.rows else []
        short = Counter(map(key_title, keys))
        return tuple(key if short[key_title(key)] > 1 else key_title(key) for key in keys)

    def _grid(
        self, columns: Sequence[str], cells: Callable[[Row], Sequence[Cell]], title: str, *notes: str
    ) -> Grid:
        header = (*self.keys, "model", *columns)
        rows = []
        for row in self.rows:
            words = ("–" if text == "null" else text for text in row.group.values.values())
            rows.append((*map(Cell, words), Cell(row.title, bound=row.bound), *cells(row)))
        return evolve(Grid.of_texts(title, header, rows, len(self.keys) + 1), notes=notes)

    def means(self) -> Grid:
        """Mean ± standard deviation, the best of each task in bold."""
        best = self._best()
        columns = [*(METRICS[metric] for metric in self.metrics), "γ", "runs"]

        def cells(row: Row) -> list[Cell]:
            scored = [_mean(row, m, best.get((row.group.task, m))) for m in self.metrics]
            gamma = _mean(row, "gamma", None, digits=2)
            found = row.replication(self.metrics[0]) if self.metrics else None
            return [*scored, gamma, Cell("–" if found is None else _count(found))]

        return self._grid(columns, cells, self.title, *self._notes())

    def _notes(self) -> tuple[str, ...]:
        found = [r for row in self.rows for m in self.metrics if (r := row.replication(m)) is not None]
        notes = ["Percent; γ in logits."]
        if any(r.std is not None for r in found):
            several = len({_unit(run)[1] for row in self.rows for run, _ in row.stages}) > 1
            units = "partitions and source models" if several else "partitions"
            over = {units if r.partitions > 1 else "training seeds" for r in found if r.std is not None}
            notes.append(f"± is the standard deviation (ddof = 1) over {' or '.join(sorted(over))}.")
        if any(r.seed_std is not None and r.partitions > 1 for r in found):
            notes.append("Training seeds of a partition are averaged first: runs (partitions).")
        notes.append("Bold: the best but for bounds, which look at labels (oracle).")
        return tuple(notes)

    def _best(self) -> dict[tuple[Any, str], float]:
        """The largest mean of each task and metric; none where there is nothing to choose from."""
        found: dict[tuple[Any, str], list[float]] = {}
        for row in self.rows:
            for metric in self.metrics:
                if not row.bound and (r := row.replication(metric)) is not None:
                    found.setdefault((row.group.task, metric), []).append(r.mean)
        return {key: max(values) for key, values in found.items() if len(values) > 1}

    def intervals(self, config: ReportConfig) -> Grid | None:
        """Bootstrap intervals: of means over partitions, else those of a run over its test images."""
        title = f"{self.title}: {100 * config.confidence:g} % bootstrap intervals"
        columns = [METRICS[metric] for metric in self.metrics]
        grid = self._grid(
            columns,
            lambda row: [_interval(row, metric, config) for metric in self.metrics],
            title,
            "Percent. Of means over partitions; of a single run over its test images, where it has them.",
        )
        known = any(cell.numbers for row in grid.rows for cell in row)
        return grid if known else None

    def differences(self, title: str, compared: Mapping[int, Row]) -> Grid:
        """Paired differences in points, with standard error and p-value where there are several pairs."""
        grid = self._grid(
            [METRICS[metric] for metric in self.metrics],
            lambda row: [_difference(row, compared[id(row)], metric) for metric in self.metrics],
            title,
            "± is the standard error over pairs; in brackets the two-sided p of sign flips, not corrected "
            "for the number of comparisons. Fewer than six pairs never reach 0.05.",
        )
        tested = any(cell.numbers.get("p") is not None for row in grid.rows for cell in row)
        return grid if tested else evolve(grid, notes=())


def _count(found: Replication) -> str:
    alone = found.partitions in (1, found.runs)
    return str(found.runs) if alone else f"{found.runs} ({found.partitions})"


def _mean(row: Row, metric: str, best: float | None, digits: int = 1) -> Cell:
    found = row.replication(metric)
    if found is None:
        return Cell("–")
    text = f"{found.mean:.{digits}f}" + ("" if found.std is None else f" ± {found.std:.{digits}f}")
    numbers = {
        "mean": found.mean,
        "std": found.std,
        "ddof": 1,
        "seed_std": found.seed_std,
        "partitions": found.partitions,
        "runs": found.runs,
    }
    is_best = best is not None and not row.bound and found.mean >= best
    unit = "logits" if metric == "gamma" else "percent"
    return Cell(text.replace("-", "−"), numbers, unit, is_best, row.bound)


def _interval(row: Row, metric: str, config: ReportConfig) -> Cell:
    found = row.replication(metric)
    if found is None:
        return Cell("–")
    interval = bootstrap_mean(found.units, config.replicates, config.confidence, seed=0)
    if interval is None:
        low, high = row.stages[0][1].intervals.get(metric, (None, None))
        if low is None or high is None:
            return Cell("–")
        interval = 100 * low, 100 * high
    numbers = dict(zip(("low", "high"), interval, strict=True))
    return Cell(f"{interval[0]:.1f} to {interval[1]:.1f}", numbers, bound=row.bound)


def _differences(rows: Sequence[Row], baseline: Mapping[str, Any]) -> Callable[[Row], Row | None]:
    """A function that gives the row that a row is compared with; None for itself, and where there is none.

    Raises:
        InputError: no row has the baseline's values.
    """
    wanted = {key: "null" if value is None else str(value) for key, value in baseline.items()}
    for key, value in wanted.items():
        choices = dict.fromkeys(row.place[key] for row in rows if key in row.place)
        if not choices:
            keys = ", ".join(rows[0].place)
            raise InputError(f"baseline={{{key}: {value}}}: runs do not differ in {key}; choose from {keys}")
        if value not in choices:
            raise InputError(f"baseline={{{key}: {value}}}: no row has it; choose from {', '.join(choices)}")
    places = {tuple(row.place.items()): row for row in rows}

    def counterpart(row: Row) -> Row | None:
        found = places.get(tuple({**row.place, **wanted}.items()))
        return None if found is None or found.place == row.place or not wanted else found

    return counterpart


def _difference(row: Row, other: Row, metric: str) -> Cell:
    own, others = row.numbers(metric), other.numbers(metric)
    by_unit = []
    for unit in own:
        common = [seed for seed in own[unit] if seed in others.get(unit, {})]
        pairs = [100 * (fmean(own[unit][seed]) - fmean(others[unit][seed])) for seed in common]
        by_unit += [pairs] if pairs else []
    if not by_unit:
        return Cell("–")
    points = [fmean(pairs) for pairs in by_unit] if len(by_unit) > 1 else by_unit[0]
    mean, p = fmean(points), sign_flip(points)
    error = stdev(points) / len(points) ** 0.5 if len(points) > 1 else None
    text = signed(mean) if error is None else f"{signed(mean)} ± {error:.1f} ({p:.2g})"
    numbers = {"difference": mean, "standard_error": error, "p": p if error is not None else None}
    return Cell(text, {**numbers, "pairs": len(points)}, "points", bound=row.bound)


def score_rows(groups: Sequence[Group], metric: str, stages: Sequence[str]) -> list[ScoreRow]:
    """What a figure of a sweep is drawn from: means ± standard deviation, as fractions.

    Args:
        groups: the groups.
        metric: the metric.
        stages: the rows to draw; those that no run has are left out.
    """
    found = []
    for row in rows_of(groups):
        scores = row.replication(metric) if row.stage in stages else None
        if scores is not None:
            mean, std = scores.mean / 100, None if scores.std is None else scores.std / 100
            drawn = ScoreRow(row.group.values, row.stage, row.title, mean, None, None, scores.runs)
            found.append(drawn if std is None else evolve(drawn, low=mean - std, high=mean + std))
    return found
