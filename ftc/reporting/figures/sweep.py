"""Scores of many runs, over what they differ in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ftc.reporting.figures.style import BLUE, CALIBRATORS, GREY, LINES, MARKERS, titled
from ftc.reporting.names import readable
from ftc.results import METRICS

_COLOURS = (BLUE, *CALIBRATORS, GREY)
# With more lines than this a value of the series has a panel of its own, and so many stand in a row.
_MOST_LINES, _MOST_PANELS = 6, 3
# A range of values that a linear axis would squeeze.
_LOG_RATIO = 30.0

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
        low, high: ends of its interval; None where there is none.
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
        rows: the scores, all with the keys ``x`` and ``series``.
        x: key of the horizontal axis.
        series: key that tells lines apart; None for stages alone.
        metric: the score's name.
    """
    lines: dict[Line, list[ScoreRow]] = {}
    for row in rows:
        lines.setdefault((row.values[series] if series else "", row.stage), []).append(row)
    values, stages = (list(dict.fromkeys(line[i] for line in lines)) for i in (0, 1))
    panels = [[value] for value in values] if len(lines) > _MOST_LINES and series else [values]
    columns = min(len(panels), _MOST_PANELS)
    depth = -(-len(panels) // columns)
    size = (max(6.4, 3.6 * columns + 0.6), 4.4 if depth == 1 else 2.9 * depth + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(depth, columns, sharex=True, sharey=True, squeeze=False)
    places = _places([row.values[x] for row in rows])
    for axes, shown in zip(grid.flat, panels, strict=False):
        drawn = {line: found for line, found in lines.items() if line[0] in shown}
        for number, ((value, stage), found) in enumerate(drawn.items()):
            # Panels tell values apart, so that a look is a stage's.
            index = number if len(panels) == 1 else stages.index(stage)
            parts = [value] * (len(panels) == 1 and bool(series)) + [found[0].title] * (len(stages) > 1)
            spread = 0.0 if _numeric(places) else 0.12 * (number - (len(drawn) - 1) / 2)
            _draw(axes, found, x, metric, places, spread, index, ", ".join(parts))
        if len(panels) > 1:
            axes.set_title(shown[0], fontsize=10)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    _finish(figure, grid, places, x, metric, rows)
    return figure


def _short(key: str) -> str:
    return readable(key.rpartition(".")[-1])


def _places(values: Sequence[str]) -> dict[str, float | None]:
    """Values of the horizontal axis in order, with the number that each is; None for names."""
    distinct = list(dict.fromkeys(values))
    try:
        numbers = {value: float(value) for value in distinct}
    except ValueError:
        return dict.fromkeys(distinct)
    return {value: numbers[value] for value in sorted(numbers, key=numbers.__getitem__)}


def _numeric(places: Mapping[str, float | None]) -> bool:
    return None not in places.values()


def _draw(
    axes: Any,
    rows: Sequence[ScoreRow],
    x: str,
    metric: str,
    places: Mapping[str, float | None],
    spread: float,
    index: int,
    label: str,
) -> None:
    """Markers with intervals, and a line through the means where values are numbers."""
    scale = 100 if metric in METRICS else 1
    order = list(places)
    by_place: dict[float, list[ScoreRow]] = {}
    for row in sorted(rows, key=lambda row: order.index(row.values[x])):
        number = places[row.values[x]]
        by_place.setdefault(order.index(row.values[x]) + spread if number is None else number, []).append(row)
    look = {"color": _COLOURS[index % len(_COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
    for place, found in by_place.items():
        for row in found:
            low, high = (row.mean if end is None else end for end in (row.low, row.high))
            bars = [[scale * (row.mean - low)], [scale * (high - row.mean)]]
            axes.errorbar(place, scale * row.mean, bars, capsize=3, markersize=5, linewidth=1, **look)
    if _numeric(places):
        means = [scale * sum(row.mean for row in found) / len(found) for found in by_place.values()]
        axes.plot(list(by_place), means, LINES[index % len(LINES)], color=look["color"])
    axes.plot([], [], LINES[index % len(LINES)] if _numeric(places) else "", label=label, **look)


def _finish(
    figure: Figure,
    grid: Any,
    places: Mapping[str, float | None],
    x: str,
    metric: str,
    rows: Sequence[ScoreRow],
) -> None:
    numbers = [number for number in places.values() if number is not None]
    for axes in grid.flat:
        if not numbers:
            axes.set_xticks(range(len(places)), list(places))
            axes.set_xlim(-0.6, len(places) - 0.4)
        elif min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG_RATIO:
            axes.set_xscale("log")
        if numbers and len(places) <= 8:
            axes.set_xticks(numbers, list(places))
            axes.xaxis.set_minor_locator(NullLocator())
        if sum(map(len, places)) > 40:
            axes.tick_params(axis="x", rotation=30)
    unit = f"{METRICS[metric]} (%)" if metric in METRICS else readable(metric)
    counts = sorted({row.n for row in rows})
    runs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    for axes in grid[-1]:
        axes.set_xlabel(_short(x))
    figure.supylabel(unit, fontsize=10)
    spread = ", bars are ± a standard deviation" * any(row.low is not None for row in rows)
    noun = "run" if runs == "1" else f"mean of {runs} runs"
    titled(figure, f"{METRICS.get(metric, metric)} by {_short(x)}", f"a marker is a {noun}{spread}")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if any(labels):
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
