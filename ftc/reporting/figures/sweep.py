"""Scores of many runs, over what they differ in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from attrs import frozen
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ftc.reporting.figures.style import BLUE, CALIBRATORS, GREY, LINES, MARKERS, titled
from ftc.reporting.names import key_title, readable
from ftc.results import METRICS

_COLOURS = (BLUE, *CALIBRATORS, GREY)
# With more lines than this a value of the series has a panel of its own, and so many stand in a row.
_MOST_LINES, _MOST_PANELS = 6, 3
# A range of values that a linear axis would squeeze.
_LOG_RATIO = 30.0
# Numbers that are all labelled, and letters of names that stand side by side; more stand one below another.
_MOST_TICKS, _MOST_LETTERS = 8, 40

# A line: value of the series, and stage.
Line = tuple[str, str]


@frozen
class ScoreRow:
    """The score of a stage in runs that differ in nothing but their seeds.

    Attributes:
        values: what the runs were made with, by varied key.
        stage: the stage's name.
        title: its name in print.
        mean: mean score, a fraction where it is an accuracy.
        low, high: a standard deviation below and above; None where there is none.
        n: number of runs.
    """

    values: Mapping[str, str]
    stage: str
    title: str
    mean: float
    low: float | None
    high: float | None
    n: int


def sweep_scores(rows: Sequence[ScoreRow], x: str, series: str | None, metric: str) -> Figure:
    """A score over a key, a line for each value of another key and stage (the paper's ablations).

    Numbers stand on a linear axis, or a logarithmic one where they span a factor of 30; names stand side by
    side. Where further keys vary, every row has its marker, and lines go through means. More than six lines
    are shown in a panel for each value of the series.

    Args:
        rows: the scores, one at least, all with the keys ``x`` and ``series``.
        x: key of the horizontal axis.
        series: key that tells lines apart; None for stages alone.
        metric: the score's name.
    """
    lines: dict[Line, list[ScoreRow]] = {}
    for row in rows:
        lines.setdefault((row.values[series] if series else "", row.stage), []).append(row)
    values, stages = (list(dict.fromkeys(line[i] for line in lines)) for i in (0, 1))
    panels = [[value] for value in values] if len(lines) > _MOST_LINES and series else [values]
    # Panels tell values apart, so that there a look is a stage's.
    looks = {line: stages.index(line[1]) if len(panels) > 1 else i for i, line in enumerate(lines)}
    columns = min(len(panels), _MOST_PANELS)
    depth = -(-len(panels) // columns)
    axis = _Axis.of([row.values[x] for row in rows])
    height = 4.8 if depth == 1 else 2.9 * depth + 1.4
    if axis.down:
        height = depth * (0.4 * len(axis.places) + 0.6) + 1.4
    figure = Figure(figsize=(max(6.4, 3.6 * columns + 0.6), height), layout="constrained")
    grid = figure.subplots(depth, columns, sharex=True, sharey=True, squeeze=False)
    for axes, shown in zip(grid.flat, panels, strict=False):
        _draw(axes, {line: lines[line] for line in lines if line[0] in shown}, looks, x, metric, axis)
        if len(panels) > 1:
            axes.set_title(shown[0], fontsize=10)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    labels = [key_title(x), f"{METRICS[metric]} (%)" if metric in METRICS else readable(metric)]
    across, up = labels[::-1] if axis.down else labels
    for axes in grid[-1]:
        axes.set_xlabel(across)
    for axes in grid[:, 0]:
        axes.set_ylabel(up)
    axis.show(grid.flat)
    titled(figure, f"{METRICS.get(metric, metric)} by {key_title(x)}", _what_a_marker_is(rows))
    drawn = [axes.get_legend_handles_labels() for axes in grid.flat]
    every = {label: handle for of_panel in drawn for handle, label in zip(*of_panel, strict=True)}
    figure.legend(every.values(), every.keys(), loc="outside lower center", ncols=min(4, len(every)))
    return figure


@frozen
class _Axis:
    """The axis of the key, which goes across, or down for names that are long.

    Attributes:
        places: where each value stands, in order.
        scale: ``linear`` or ``log`` for numbers, ``names`` for anything else.
    """

    places: dict[str, float]
    scale: Literal["linear", "log", "names"]

    @classmethod
    def of(cls, values: Iterable[str]) -> _Axis:
        distinct = list(dict.fromkeys(values))
        numbers = {value: number for value in distinct if (number := _number(value)) is not None}
        if len(numbers) < len(distinct):
            return cls({value: float(place) for place, value in enumerate(distinct)}, "names")
        low, high = min(numbers.values()), max(numbers.values())
        places = {value: numbers[value] for value in sorted(numbers, key=numbers.__getitem__)}
        return cls(places, "log" if low > 0 and high / low >= _LOG_RATIO else "linear")

    @property
    def down(self) -> bool:
        """Whether it goes down."""
        return self.scale == "names" and sum(map(len, self.places)) > _MOST_LETTERS

    def beside(self, value: str, offset: float) -> float:
        """The place of a value for a line that stands so many lines right of the middle one."""
        place, ends = self.places[value], (min(self.places.values()), max(self.places.values()))
        if self.scale == "names":
            return place + 0.12 * offset
        if self.scale == "log":
            return place * (ends[1] / ends[0]) ** (0.008 * offset)
        return place + 0.008 * offset * (ends[1] - ends[0])

    def show(self, panels: Iterable[Any]) -> None:
        """Label the values, where there is room for all of them."""
        names = list(self.places)
        for axes in panels:
            if self.scale == "log":
                axes.set_xscale("log")
            if self.down:
                axes.set_ylim(len(names) - 0.4, -0.6)
                axes.set_yticks(list(self.places.values()), names)
                continue
            if self.scale == "names":
                axes.set_xlim(-0.6, len(names) - 0.4)
            if self.scale == "names" or len(names) <= _MOST_TICKS:
                axes.set_xticks(list(self.places.values()), names)
                axes.xaxis.set_minor_locator(NullLocator())


def _draw(
    axes: Any,
    lines: Mapping[Line, Sequence[ScoreRow]],
    looks: Mapping[Line, int],
    x: str,
    metric: str,
    axis: _Axis,
) -> None:
    """Markers with intervals and, where values are numbers, lines through the means."""
    scale = 100 if metric in METRICS else 1
    one_value, one_stage = (len({line[i] for line in lines}) == 1 for i in (0, 1))
    for number, ((value, stage), rows) in enumerate(lines.items()):
        colour, marker, style = _look(looks[value, stage], stage, one_value)
        label = rows[0].title if one_value else value if one_stage else f"{value}, {rows[0].title}"
        by_value: dict[str, list[ScoreRow]] = {}
        for row in sorted(rows, key=lambda row: axis.places[row.values[x]]):
            by_value.setdefault(row.values[x], []).append(row)
        places = [axis.beside(of_value, number - (len(lines) - 1) / 2) for of_value in by_value]
        drawn = [
            (place, row) for place, found in zip(places, by_value.values(), strict=True) for row in found
        ]
        at = [place for place, _ in drawn]
        scores = [scale * row.mean for _, row in drawn]
        bars = [
            [scale * (row.mean - (row.mean if row.low is None else row.low)) for _, row in drawn],
            [scale * ((row.mean if row.high is None else row.high) - row.mean) for _, row in drawn],
        ]
        plot = partial(axes.errorbar, fmt=marker, color=colour, markersize=5, capsize=3, linewidth=1)
        plot(scores, at, xerr=bars) if axis.down else plot(at, scores, yerr=bars)
        style = "none" if axis.scale == "names" else style
        means = [scale * sum(row.mean for row in found) / len(found) for found in by_value.values()]
        if not axis.down:
            axes.plot(places, means, color=colour, linestyle=style)
        axes.plot([], [], color=colour, linestyle=style, marker=marker, label=label)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _look(number: int, stage: str, one_value: bool) -> tuple[str, str, str]:
    """Colour, marker and line style; the oracle's are those of other figures where lines are stages."""
    if stage == "oracle" and one_value:
        return "black", "*", ":"
    colour, marker, style = (looks[number % len(looks)] for looks in (_COLOURS, MARKERS, LINES))
    return colour, marker, style


def _what_a_marker_is(rows: Sequence[ScoreRow]) -> str:
    counts = sorted({row.n for row in rows})
    spread = " ± a standard deviation" if any(row.low is not None for row in rows) else ""
    if counts == [1]:
        return f"markers: single runs{spread}"
    several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return f"markers: means of {several} runs{spread}"
