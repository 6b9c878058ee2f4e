"""How fine-tuning moves the rows of the head."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ftc.reporting.figures.style import short, titled
from ftc.reporting.names import decimal
from ftc.reporting.table import signed
from ftc.results import HeadUpdates, RunRecord

# Up to so many classes are named, and up to so many have their cosines written into the cells.
_MOST_NAMED, _MOST_WRITTEN = 40, 12


def head_updates(record: RunRecord) -> Figure:
    """Cosines of the update vectors of the head's rows, seen classes first (the paper's heat map)."""
    assert record.analyses is not None and record.analyses.head_updates is not None
    found = record.analyses.head_updates
    matrix = np.array([[np.nan if value is None else value for value in row] for row in found.matrix])
    written = len(matrix) <= _MOST_WRITTEN
    side = float(np.clip((0.46 if written else 0.16) * len(matrix), 4.4, 7.0))
    figure = Figure(figsize=(side + 2.2, side + 1.5), layout="constrained")
    axes = figure.add_subplot()
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="0.85")
    image = axes.imshow(matrix, cmap=colours, vmin=-1, vmax=1)
    figure.colorbar(image, ax=axes, label="cosine", shrink=0.8)
    axes.grid(visible=False)
    if written:
        _write_cells(axes, matrix)
    _mark_groups(axes, found)
    means = {"S": found.within_seen, "U": found.within_absent, "S and U": found.across}
    texts = [f"{pair}: {signed(mean, 2)}" for pair, mean in means.items() if mean is not None]
    titled(figure, "Updates of the head's rows", f"mean cosine within {', '.join(texts)}", record.name)
    return figure


def _write_cells(axes: Any, matrix: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(matrix):
        if not np.isnan(value):
            colour = "white" if abs(value) > 0.6 else "black"
            text = decimal(value)
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def _mark_groups(axes: Any, found: HeadUpdates) -> None:
    """Draw a line between the groups, and name classes or, where they are many, groups alone."""
    border, end = found.seen_blocks - 0.5, len(found.matrix) - 0.5
    if -0.5 < border < end:
        axes.axhline(border, color="black", linewidth=1.5)
        axes.axvline(border, color="black", linewidth=1.5)
    num_absent = len(found.names) - found.num_seen
    groups = [
        (middle, f"{name}, {count} class{'es' * (count > 1)}")
        for name, count, middle in (
            ("seen", found.num_seen, (border - 0.5) / 2),
            ("absent", num_absent, (border + end) / 2),
        )
        if count
    ]
    places, texts = [place for place, _ in groups], [text for _, text in groups]
    if len(found.names) <= _MOST_NAMED:
        names = [short(name) for name in found.names]
        size = 9 if len(names) <= 15 else 7
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
        top = axes.secondary_xaxis("top")
        top.set_xticks(places, texts)
        top.tick_params(length=0)
        top.spines["top"].set_visible(False)
    else:
        axes.set_xticks(places, texts)
        axes.set_yticks(places, texts, rotation=90, va="center")
        axes.tick_params(length=0)
    if found.block > 1:
        axes.set_xlabel(f"a cell is the mean over pairs of {found.block} by {found.block} classes")
