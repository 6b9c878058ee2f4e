"""Features of two dimensions, drawn as they are: points, and the regions of a classifier's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ftc.reporting.figures.style import BLUE, GREEN, GREY, NCM, ORANGE, PURPLE, RED, STYLE

# Their number differs from that of the markers, so that few classes share both.
_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, NCM)
_MARKERS = "osD^v"
# Points of a panel that are drawn, and places along an axis that are tried for a region's name.
_MOST, _PLACES = 400, 40
# Share of a class's colour in its region; the rest is white.
_TINT = 0.25


@dataclass(frozen=True)
class Plane:
    """One panel.

    Attributes:
        title: what stands above it.
        points: (N, 2), float.
        regions: int (G, G), the column that each cell of the plane is given to, by row (y) and column (x).
        extent: left, right, bottom and top of ``regions``.
        behind: (M, 2), float, points without a class that are drawn in grey; None for none.
    """

    title: str
    points: np.ndarray
    regions: np.ndarray
    extent: tuple[float, float, float, float]
    behind: np.ndarray | None = None


def feature_planes(
    title: str,
    rows: Mapping[str, Sequence[Plane]],
    target: np.ndarray,
    class_names: Sequence[str],
    seen: Sequence[int],
) -> Figure:
    """Draw points and regions: models side by side, below one another the planes that they are drawn in.

    Seen classes are filled and absent ones hollow; a region bears its class's name.

    Args:
        title: title of the figure.
        rows: panels by what their plane is, one for each model; titles are those of the first row.
        target: int (N,), the points' columns.
        class_names: name of each column.
        seen: the seen columns.
    """
    width = max(map(len, rows.values()))
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(2.9 * width + 0.4, 2.95 * len(rows) + 1.1), layout="constrained")
        drawn = len(_some(len(target)))
        some = "" if drawn == len(target) else f", {drawn:,} of {len(target):,} points"
        figure.suptitle(f"{title}{some}")
        grid = figure.subplots(len(rows), width, squeeze=False)
        for axes_of_row, (name, planes) in zip(grid, rows.items(), strict=True):
            axes_of_row[0].set_ylabel(name)
            for axes, plane in zip(axes_of_row, planes, strict=True):
                _draw(axes, plane, target, class_names, seen)
        for axes, plane in zip(grid[0], next(iter(rows.values())), strict=True):
            axes.set_title(plane.title, fontsize=9.5)
        handles = [
            Line2D(
                [],
                [],
                linestyle="",
                label=f"{class_names[c]}, {'seen' if c in seen else 'absent'}",
                **_look(c, seen),
            )
            for c in np.unique(target).tolist()
        ]
        if any(plane.behind is not None for planes in rows.values() for plane in planes):
            handles.append(Line2D([], [], linestyle="", marker=".", color=GREY, label="source domain"))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * width))
    return figure


def _draw(
    axes: Any, plane: Plane, target: np.ndarray, class_names: Sequence[str], seen: Sequence[int]
) -> None:
    left, right, bottom, top = plane.extent
    columns = np.unique(plane.regions)
    colours = np.array([[1 - _TINT * (1 - part) for part in to_rgb(_colour(c))] for c in columns])
    picture = colours[np.searchsorted(columns, plane.regions)]
    axes.imshow(picture, extent=plane.extent, origin="lower", aspect="auto", interpolation="nearest")
    x, y = (
        np.linspace(*ends, size)
        for ends, size in zip(((left, right), (bottom, top)), plane.regions.T.shape, strict=True)
    )
    for column in columns if len(columns) > 1 else ():
        axes.contour(x, y, plane.regions == column, levels=[0.5], colors="black", linewidths=0.8)
    if plane.behind is not None:
        axes.plot(*plane.behind[_some(len(plane.behind))].T, ".", color=GREY, markersize=2, alpha=0.6)
    rows = _some(len(target))
    for column in np.unique(target).tolist():
        of_class = plane.points[rows][target[rows] == column]
        axes.plot(*of_class.T, linestyle="", alpha=0.75, **_look(column, seen))
    for column in columns.tolist():
        place = _place_of_name(plane, plane.regions == column)
        axes.text(*place, class_names[column], ha="center", va="center", fontsize=9, weight="bold")
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], box_aspect=1)


def _look(column: int, seen: Sequence[int]) -> dict[str, Any]:
    """A class's marker: filled where it is seen, hollow where it is not."""
    colour = _colour(column)
    face = colour if column in seen else "white"
    marker = _MARKERS[column % len(_MARKERS)]
    return {
        "marker": marker,
        "markersize": 4,
        "markeredgewidth": 0.9,
        "color": colour,
        "markerfacecolor": face,
    }


def _colour(column: int) -> str:
    return _COLOURS[column % len(_COLOURS)]


def _some(count: int) -> np.ndarray:
    """At most so many rows of ``count``, evenly spaced."""
    drawn = min(count, _MOST)
    return np.arange(drawn) * count // max(drawn, 1)


def _place_of_name(plane: Plane, own: np.ndarray) -> tuple[float, float]:
    """The middle of the widest empty spot of a region."""
    left, right, bottom, top = plane.extent
    steps = np.linspace(0, 1, _PLACES + 2)[1:-1]
    inside = own[np.ix_(*((steps * (size - 1)).astype(int) for size in own.shape))]
    cells = np.stack(np.meshgrid(steps, steps), axis=-1)
    candidates, others = cells[inside], cells[~inside]
    points = (plane.points[_some(len(plane.points))] - (left, bottom)) / (right - left, top - bottom)
    to_edge = np.minimum(candidates, 1 - candidates).min(1)
    room = np.minimum(to_edge, 0.5 * _nearest(candidates, points))
    if len(others):
        room = np.minimum(room, _nearest(candidates, others))
    x, y = candidates[room.argmax()] if len(candidates) else np.argwhere(own)[0][::-1] / own.shape[0]
    return left + x * (right - left), bottom + y * (top - bottom)


def _nearest(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance from each place to its nearest point."""
    return np.sqrt(((places[:, None] - points) ** 2).sum(-1).min(1))
