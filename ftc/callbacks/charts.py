"""The seen–absent curve of one evaluation with its markers, as trackers show it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
from attrs import frozen
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ftc.evaluation.summary import Evaluation
from ftc.functional import SeenAbsentCurve
from ftc.reporting.figures.style import BLUE, CALIBRATORS, GREY, MARKERS, STYLE

# Points of a curve; those in run folders are complete.
CURVE_POINTS = 200

# Plotly's names of Matplotlib's markers and lines.
_SYMBOLS = {
    "o": "circle",
    "D": "diamond",
    "s": "square",
    "v": "triangle-down",
    "P": "cross",
    "^": "triangle-up",
    "X": "x",
    "d": "diamond-tall",
    "*": "star",
}
_DASHES = {"-": "solid", "--": "dash"}

_AXES = ("seen accuracy S/Y (%)", "absent accuracy U/Y (%)")


@frozen(eq=False)
class Line:
    """A curve: S/Y and U/Y in percent, and γ, at each of its points, (K,)."""

    label: str
    seen: list[float]
    absent: list[float]
    gamma: list[float]
    colour: str
    style: str


@frozen
class Mark:
    """A point: S/Y and U/Y in percent, with its γ."""

    label: str
    seen: float
    absent: float
    gamma: float
    colour: str
    marker: str


@frozen(eq=False)
class Chart:
    """Acc_{U/Y} against Acc_{S/Y} over γ; marks for source, γ = 0, every γ̂ and the oracle's γ*.

    Attributes:
        title: what was evaluated.
        lines: the source model's curve, where it is known, and the fine-tuned model's.
        marks: the points on them.
    """

    title: str
    lines: list[Line]
    marks: list[Mark]

    def plotly(self) -> dict[str, Any]:
        """The chart as JSON of Plotly, whose hints give γ."""
        hint = "γ %{customdata:.2f}<br>S/Y %{x:.1f} %<br>U/Y %{y:.1f} %"
        lines = [
            {
                "type": "scatter",
                "mode": "lines",
                "name": line.label,
                "x": line.seen,
                "y": line.absent,
                "customdata": line.gamma,
                "hovertemplate": hint,
                "line": {"color": line.colour, "dash": _DASHES[line.style]},
            }
            for line in self.lines
        ]
        marks = [
            {
                "type": "scatter",
                "mode": "markers",
                "cliponaxis": False,
                "name": mark.label,
                "x": [mark.seen],
                "y": [mark.absent],
                "customdata": [mark.gamma],
                "hovertemplate": hint,
                "marker": {
                    "color": mark.colour,
                    "symbol": _SYMBOLS[mark.marker],
                    "size": 15 if mark.marker == "*" else 10,
                    "line": {"color": "white", "width": 1},
                },
            }
            for mark in self.marks
        ]
        x, y = ({"title": {"text": text}, "range": [0, 102]} for text in _AXES)
        layout = {"title": {"text": self.title}, "xaxis": x, "yaxis": y, "template": "plotly_white"}
        return {"data": [*lines, *marks], "layout": layout}

    def image(self) -> np.ndarray:
        """The chart as a picture, uint8 (height, width, 3)."""
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(9.2, 5.2), layout="constrained")
            axes = figure.add_subplot()
            for line in self.lines:
                axes.plot(line.seen, line.absent, line.style, color=line.colour, label=line.label, zorder=1)
            for mark in self.marks:
                axes.scatter(
                    mark.seen,
                    mark.absent,
                    color=mark.colour,
                    marker=mark.marker,
                    s=130 if mark.marker == "*" else 55,
                    label=mark.label,
                    edgecolors="white",
                    zorder=2,
                    clip_on=False,
                )
            axes.set(xlabel=_AXES[0], ylabel=_AXES[1], xlim=(0, 102), ylim=(0, 102), title=self.title)
            figure.legend(loc="outside right upper")
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def seen_absent_chart(stage: str, evaluation: Evaluation, source: SeenAbsentCurve | None) -> Chart | None:
    """The chart of an evaluation; None where samples of S or of U are missing.

    Args:
        stage: ``val`` or ``test``.
        evaluation: the evaluation.
        source: the source model's curve on the same samples, where it is known.
    """
    if math.isnan(evaluation.curve.ausuc):
        return None
    of_source = evaluation.epoch == -1
    curves = {} if of_source or source is None else {"source": source}
    curves["source" if of_source else "fine-tuned"] = evaluation.curve
    models = [(name, curve, GREY if name == "source" else BLUE) for name, curve in curves.items()]
    lines = [
        _line(f"{name}, AUSUC {100 * curve.ausuc:.1f}", curve, colour, "--" if name == "source" else "-")
        for name, curve, colour in models
    ]
    marks = [_mark(f"{name}, γ = 0", 0.0, curve.at(0.0), colour, "o") for name, curve, colour in models]
    model = "source model" if of_source else f"epoch {evaluation.epoch}"
    return Chart(f"Seen–absent curve, {stage}, {model}", lines, [*marks, *_calibrated(evaluation)])


def _calibrated(evaluation: Evaluation) -> Iterator[Mark]:
    """Marks of the calibrators, and of the oracle last."""
    calibrators = [(n, r) for n, r in evaluation.calibrated.items() if r.calibration.lane != "oracle"]
    for number, (name, result) in enumerate(calibrators):
        gamma = result.calibration.gamma
        colour, marker = CALIBRATORS[number % len(CALIBRATORS)], MARKERS[number % len(MARKERS)]
        yield _mark(f"{result.title or name}, γ = {gamma:.1f}", gamma, result.metrics, colour, marker)
    if "oracle" in evaluation.calibrated:
        oracle = evaluation.calibrated["oracle"]
        gamma = oracle.calibration.gamma
        yield _mark(f"oracle, γ* = {gamma:.1f}", gamma, oracle.metrics, "black", "*")


def _line(label: str, curve: SeenAbsentCurve, colour: str, style: str) -> Line:
    drawn = curve.thin(CURVE_POINTS)
    seen, absent = (_percent(rates) for rates in (drawn.acc_seen, drawn.acc_absent))
    return Line(label, seen, absent, drawn.gamma.tolist(), colour, style)


def _percent(rates: Any) -> list[float]:
    percents: list[float] = (100 * rates).tolist()
    return percents


def _mark(label: str, gamma: float, metrics: Any, colour: str, marker: str) -> Mark:
    return Mark(label, 100 * metrics["acc_seen"], 100 * metrics["acc_absent"], gamma, colour, marker)
