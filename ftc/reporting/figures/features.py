"""How fine-tuning moves features."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ftc.reporting.figures.style import GROUP_MARKERS, GROUPS, LINES, short, titled
from ftc.results import ClassShift, RunRecord

# Up to so many classes are named in the plane, and up to so many have a bar.
_MOST_NAMED, _MOST_BARS = 30, 40
# Smaller drifts are but rounding.
_STILL = 1e-5


def class_shift(record: RunRecord) -> Figure:
    """Where class means go, in their principal plane and class by class (the paper, on how features move)."""
    assert record.analyses is not None
    found, groups = record.analyses.class_shift, _groups(record)
    drift = np.array([np.nan if value is None else value for value in found.drift])
    moved = bool((drift > _STILL).any())
    size = (11 if moved else 7, max(5.2, min(8.0, 0.17 * len(found.columns) + 1.6)))
    figure = Figure(figsize=size, layout="constrained")
    left, *others = figure.subplots(1, 1 + moved, width_ratios=(1.35, 1)[: 1 + moved], squeeze=False)[0]
    _draw_plane(left, found, groups)
    left.set_title("Class means in their principal plane" + ("" if moved else ": none moved"))
    for right in others:
        right.set_title("Drift of each class mean")
        if len(drift) <= _MOST_BARS:
            _draw_bars(right, found, groups, drift)
        else:
            _draw_ranks(right, groups, drift)
    cka = [f"{group} {value:.2f}" for group, value in record.analyses.cka.items() if value is not None]
    alike = [f"CKA of both models' features: {', '.join(cka)}"] if cka else []
    titled(figure, "Shift of class means by fine-tuning", *alike, record.name)
    present = [group for group in GROUPS if group in groups]
    marks = [
        Line2D(
            [], [], color=GROUPS[group], marker=GROUP_MARKERS[group], linestyle="", label=f"{group} classes"
        )
        for group in present
    ]
    old = Line2D([], [], color="black", marker="o", fillstyle="none", linestyle="", label="source model")
    new = Line2D([], [], color="black", marker="o", linestyle="", label="fine-tuned model")
    figure.legend(handles=[*marks, old, new], loc="outside lower center", ncols=len(marks) + 2)
    return figure


def _groups(record: RunRecord) -> np.ndarray:
    """Group of every class with test images."""
    assert record.analyses is not None
    by_column = record.partition.partition().groups()
    return np.array([by_column[column] for column in record.analyses.class_shift.columns])


def _draw_plane(axes: Any, found: ClassShift, groups: np.ndarray) -> None:
    source, fine_tuned = np.array(found.source), np.array(found.fine_tuned)
    for group in GROUPS:
        look = {"color": GROUPS[group], "marker": GROUP_MARKERS[group], "linestyle": ""}
        old, new = source[groups == group], fine_tuned[groups == group]
        axes.plot(*old.T, fillstyle="none", markersize=6, **look)
        axes.plot(*new.T, markersize=6, **look)
        for start, end in zip(old, new, strict=True):
            if np.allclose(start, end):
                continue
            arrow = {"arrowstyle": "-|>", "color": GROUPS[group], "alpha": 0.5, "shrinkA": 3, "shrinkB": 3}
            axes.annotate("", end, start, arrowprops=arrow)
    if len(found.names) <= _MOST_NAMED:
        edge = np.quantile(fine_tuned[:, 0], 0.75)
        for name, place in zip(found.names, fine_tuned, strict=True):
            side = -1 if place[0] > edge else 1
            beside = {"xytext": (5 * side, 4), "textcoords": "offset points"}
            axes.annotate(short(name, 14), place, fontsize=8, ha="left" if side > 0 else "right", **beside)
    shares = ["" if share is None else f" ({100 * share:.0f} % of variance)" for share in found.explained]
    axes.set(xlabel=f"first axis{shares[0]}", ylabel=f"second axis{shares[1]}")
    axes.margins(0.08)
    axes.set_aspect("equal", adjustable="datalim")


def _draw_bars(axes: Any, found: ClassShift, groups: np.ndarray, drift: np.ndarray) -> None:
    order = [i for group in GROUPS for i in np.flatnonzero(groups == group)]
    for place, i in enumerate(order):
        hatch = {"seen": None, "absent": "///", "others": "..."}[groups[i]]
        axes.barh(place, drift[i], color=GROUPS[groups[i]], hatch=hatch, edgecolor="white", linewidth=0)
    size = 9 if len(order) <= 20 else 7
    axes.set_yticks(range(len(order)), [short(found.names[i], 18) for i in order], fontsize=size)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("distance to old mean / old means' mean radius")


def _draw_ranks(axes: Any, groups: np.ndarray, drift: np.ndarray) -> None:
    """Drifts of each group in ascending order, over the share of its classes."""
    for group, style in zip(GROUPS, LINES, strict=False):
        values = np.sort(drift[groups == group])
        if len(values):
            share = 100 * np.arange(1, len(values) + 1) / len(values)
            every = max(1, len(values) // 20)
            look = {"marker": GROUP_MARKERS[group], "markersize": 4, "markevery": every}
            axes.plot(share, values, color=GROUPS[group], linestyle=style, **look)
    axes.set(
        xlabel="classes of the group, by drift (%)", ylabel="distance to old mean / old means' mean radius"
    )
    axes.set_ylim(bottom=0)
