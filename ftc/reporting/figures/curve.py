"""The seen–absent curve."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from attrs import frozen
from matplotlib.figure import Figure

from ftc.reporting.figures.style import BLUE, CALIBRATORS, GREY, MARKERS, calibrators_of
from ftc.reporting.names import stage_title
from ftc.results import RunRecord, StageRecord

# Markers within so many points of their median in both accuracies are a cloud, which an inset shows larger.
_CLOUD = 10.0
# Side of the inset as a share of the axes, room for its tick labels, and where its lower left corner may be.
_SIDE, _LABELS = 0.38, 0.08
_CORNERS = ((0.1, 0.1), (0.61, 0.61), (0.61, 0.1), (0.1, 0.61))


@frozen
class _Marker:
    """A model at its γ: seen and absent accuracy in percent, and how it looks."""

    label: str
    seen: float
    absent: float
    look: dict[str, Any]


@frozen(eq=False)
class _Curve:
    """A model at every γ: seen and absent accuracies in percent, and how it looks."""

    label: str
    seen: np.ndarray
    absent: np.ndarray
    look: dict[str, Any]


def seen_absent_curve(record: RunRecord) -> Figure:
    """Acc_{U/Y} against Acc_{S/Y} over γ; markers for source, γ = 0, every γ̂ and γ* (the paper's curve).

    Where markers crowd and a corner is free, an inset shows the crowd larger.
    """
    figure = Figure(figsize=(9.2, 5.4), layout="constrained")
    axes = figure.add_subplot()
    curves, markers = _curves(record), _markers(record)
    _draw(axes, curves, markers)
    axes.set(xlabel="seen accuracy S/Y (%)", ylabel="absent accuracy U/Y (%)", xlim=(0, 102), ylim=(0, 102))
    axes.set_title(f"Seen–absent curve: one scalar γ trades the two\n{fill(record.name, 50)}")
    if markers:
        figure.legend(loc="outside right upper")
        _inset(axes, curves, markers)
    else:
        axes.text(50, 50, "no absent-class samples were evaluated", ha="center")
    return figure


def _models(record: RunRecord) -> list[tuple[str, StageRecord, dict[str, Any]]]:
    """The source model, if it was evaluated, and the one that calibrators are for."""
    evaluated = "fine-tuned" if record.checkpoint is None else "checkpoint"
    found = [(evaluated, record.stages.fine_tuned, {"color": BLUE, "linestyle": "-"})]
    if record.stages.source is not None:
        found.insert(0, ("source", record.stages.source, {"color": GREY, "linestyle": "--"}))
    return found


def _curves(record: RunRecord) -> list[_Curve]:
    return [
        _Curve(
            f"{name}, AUSUC {100 * (stage.metrics['ausuc'] or 0.0):.1f}",
            np.array([100 * (value or 0.0) for value in stage.curve["acc_seen"]]),
            np.array([100 * (value or 0.0) for value in stage.curve["acc_absent"]]),
            look,
        )
        for name, stage, look in _models(record)
        if stage.curve is not None and None not in stage.curve["acc_absent"]
    ]


def _markers(record: RunRecord) -> list[_Marker]:
    """All of them, the oracle last and on top."""
    found: list[tuple[str, StageRecord, dict[str, Any]]] = []
    for name, stage, look in _models(record):
        label = name if stage is record.stages.source else f"{name}, γ = 0"
        found.append((label, stage, {"color": look["color"], "marker": "o"}))
    for index, (name, stage) in enumerate(calibrators_of(record).items()):
        # A model of its own lies on no curve that is drawn.
        own = ", own weights" if stage.details.get("alpha", 1.0) != 1.0 else ""
        label = f"{stage_title(name, stage)}, γ = {stage.gamma:.1f}{own}"
        colour, marker = CALIBRATORS[index % len(CALIBRATORS)], MARKERS[index % len(MARKERS)]
        found.append((label, stage, {"color": colour, "marker": marker}))
    oracle = record.stages.calibrated.get("oracle")
    if oracle is not None:
        label = f"{stage_title('oracle', oracle)}, γ* = {oracle.gamma:.1f}"
        found.append((label, oracle, {"color": "black", "marker": "*", "s": 130}))
    points = [(label, s.metrics["acc_seen"], s.metrics["acc_absent"], look) for label, s, look in found]
    return [
        _Marker(label, 100 * seen, 100 * absent, look)
        for label, seen, absent, look in points
        if seen is not None and absent is not None
    ]


def _draw(axes: Any, curves: Sequence[_Curve], markers: Sequence[_Marker]) -> None:
    for curve in curves:
        axes.plot(curve.seen, curve.absent, label=curve.label, zorder=1, **curve.look)
    for marker in markers:
        look = {"s": 55, "zorder": 2, "edgecolors": "white", "linewidths": 0.8, **marker.look}
        axes.scatter(marker.seen, marker.absent, label=marker.label, **look)


def _inset(axes: Any, curves: Sequence[_Curve], markers: Sequence[_Marker]) -> None:
    """Show the cloud of markers larger in a corner that nothing runs through, if there is one."""
    points = np.array([(marker.seen, marker.absent) for marker in markers])
    cloud = points[(np.abs(points - np.median(points, axis=0)) <= _CLOUD).all(1)]
    corner = _free_corner([*((c.seen, c.absent) for c in curves), (points[:, 0], points[:, 1])])
    if len(cloud) < 3 or corner is None:
        return
    low, high = cloud.min(0), cloud.max(0)
    # Square, so that both accuracies have one scale, with room around the markers.
    half = max(1.5, 0.62 * float((high - low).max()))
    (x, y), (left, bottom) = np.clip((low + high) / 2, half - 1, 103 - half), corner
    inset = axes.inset_axes(
        (left, bottom, _SIDE, _SIDE), xlim=(x - half, x + half), ylim=(y - half, y + half)
    )
    _draw(inset, curves, markers)
    inset.tick_params(labelsize=8)
    inset.spines[["top", "right"]].set_visible(True)
    axes.indicate_inset_zoom(inset, edgecolor="black", alpha=0.5, linewidth=0.7)


def _free_corner(lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float] | None:
    """The corner whose inset is farthest from all lines, points and segments; None where each covers some."""
    finely = [
        np.stack([np.interp(np.linspace(0, len(x) - 1, 20 * len(x)), np.arange(len(x)), v) for v in (x, y)])
        for x, y in lines
    ]
    shares = np.concatenate(finely, axis=1).T / 102

    def clearance(corner: tuple[float, float]) -> float:
        low, high = np.array(corner) - _LABELS, np.array(corner) + _SIDE
        return float(np.maximum(low - shares, shares - high).max(1).min())

    best = max(_CORNERS, key=clearance)
    return best if clearance(best) > 0 else None
