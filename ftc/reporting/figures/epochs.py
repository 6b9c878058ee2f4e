"""Numbers of a run's evaluations by epoch."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure

from ftc.reporting.figures.style import (
    ABSENT,
    ALL,
    CALIBRATORS,
    LINES,
    MARKERS,
    NCM,
    ORANGE,
    SEEN,
    calibrators_of,
    legend_below,
    titled,
)
from ftc.reporting.names import stage_title
from ftc.results import RunRecord

Row = dict[str, Any]


def accuracies_over_epochs(record: RunRecord, epochs: list[Row]) -> Figure:
    """Validation accuracies by epoch: γ = 0 on the left; calibrated and NCM on the right.

    Where only seen classes are validated, the right panel says so: γ can only take from their accuracy.
    """
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    titled(figure, record.name)
    whole = has(epochs, "acc_absent")
    left, right = figure.subplots(1, 2, sharey=True)
    for key, label, colour, style in (
        ("acc_seen", "S/Y", SEEN, "-"),
        ("acc_absent", "U/Y", ABSENT, "--"),
        ("acc_all", "Y/Y", ALL, "-.") if whole else ("acc_seen_within", "S/S", ALL, "-."),
    ):
        _line(left, epochs, key, label, colour, percent=True, style=style)
    left.set(title="Fine-tuned, γ = 0", ylabel="validation accuracy (%)")
    _line(right, epochs, "acc_all", "γ = 0", ALL, percent=True)
    calibrators = calibrators_of(record)
    for number, (name, stage) in enumerate(calibrators.items()):
        # No two calibrators share colour and line.
        turn, place = divmod(number, len(CALIBRATORS))
        style = LINES[turn % len(LINES)]
        label, colour = stage_title(name, stage), CALIBRATORS[place]
        _line(right, epochs, f"{name}/acc_all", label, colour, percent=True, style=style)
    oracle = record.stages.calibrated.get("oracle")
    label = "oracle" if oracle is None else stage_title("oracle", oracle)
    _line(right, epochs, "oracle/acc_all", label, "black", percent=True, style=":")
    _line(right, epochs, "ncm_acc_all", "NCM on features", NCM, percent=True, style="--")
    right.set(title="All classes, Y/Y" if whole else "Seen classes alone, S/Y: what γ takes from them")
    _finish(left, right)
    left.set_ylim(*_percent_limits(left, right))
    return figure


def _percent_limits(*panels: Any) -> tuple[float, float]:
    """Whole tens around all values, with a margin."""
    values = [float(value) for axes in panels for line in axes.lines for value in line.get_ydata()]
    low, high = min(values, default=0.0), max(values, default=100.0)
    return max(10 * math.floor((low - 2) / 10), -2), min(10 * math.ceil((high + 2) / 10), 102)


def logit_scales_over_epochs(record: RunRecord, epochs: list[Row]) -> Figure:
    """Mean logits of absent-class samples by epoch, if any, and how far seen columns outgrow absent ones."""
    of_absent = (
        ("logit_ground_truth_on_absent", "ground truth", ABSENT, "--"),
        ("logit_absent_rival_on_absent", "largest other absent", ORANGE, "-."),
        ("logit_seen_max_on_absent", "largest seen", SEEN, "-"),
    )
    whole = has(epochs, *(key for key, *_ in of_absent))
    figure = Figure(figsize=(10 if whole else 5.4, 4.8), layout="constrained")
    titled(figure, record.name)
    *others, right = figure.subplots(1, 1 + whole, squeeze=False)[0]
    for left in others:
        for key, label, colour, style in of_absent:
            _line(left, epochs, key, label, colour, style=style)
        left.set(title="On absent-class samples", ylabel="mean logit")
    for key, label, colour, style in (
        ("logit_gap_on_seen", "on seen samples", SEEN, "-"),
        ("logit_gap_on_absent", "on absent samples", ABSENT, "--"),
    ):
        _line(right, epochs, key, label, colour, style=style)
    right.set(title="Gap: seen minus absent columns", ylabel="mean logit gap")
    _finish(*others, right)
    return figure


def weight_norms_over_epochs(record: RunRecord, epochs: list[Row]) -> Figure:
    """Mean norms of the head's rows by epoch, and mean biases if any (the paper, on weight norms)."""
    kinds = [
        (kind, title)
        for kind, title in (("head_weight_norm", "Rows of the head"), ("head_bias", "Biases of the head"))
        if has(epochs, f"{kind}_seen", f"{kind}_absent")
    ]
    figure = Figure(figsize=(5 * len(kinds) + 0.4 * (len(kinds) == 1), 4.4), layout="constrained")
    titled(figure, record.name)
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, (kind, title) in zip(panels, kinds, strict=True):
        for group, colour, style in (("seen", SEEN, "-"), ("absent", ABSENT, "--")):
            _line(axes, epochs, f"{kind}_{group}", f"{group} classes", colour, style=style)
        axes.set(title=title, ylabel="mean L2 norm" if kind == "head_weight_norm" else "mean bias")
    _finish(*panels)
    return figure


def has(epochs: list[Row], *keys: str) -> bool:
    """Whether any epoch has a value of any of the keys."""
    return any(row.get(key) is not None for row in epochs for key in keys)


def _line(
    axes: Any, epochs: list[Row], key: str, label: str, colour: str, percent: bool = False, style: str = "-"
) -> None:
    points = [(row["epoch"], row[key]) for row in epochs if row.get(key) is not None]
    if points:
        x, y = zip(*points, strict=True)
        scaled = [100 * value for value in y] if percent else y
        marker = MARKERS[len(axes.lines) % len(MARKERS)]
        axes.plot(x, scaled, style, color=colour, label=label, marker=marker, markersize=4)


def _finish(*panels: Any) -> None:
    for axes in panels:
        axes.set_xlabel("epoch (−1: source model)")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if axes.lines:
            legend_below(axes)
