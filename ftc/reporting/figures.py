"""Figures of a run, drawn from its record and its epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ftc.files import written_whole
from ftc.reporting.names import stage_title
from ftc.results import Measured, RunRecord, StageRecord

Row = dict[str, Any]

# Okabe and Ito's palette, which readers with any colour vision can tell apart.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
NCM = "#56B4E9"
SEEN, ABSENT, ALL = BLUE, RED, GREY
CALIBRATORS = [GREEN, PURPLE, ORANGE, "#8C564B", "#F0E442"]
LINES = ("-", "--", "-.", ":")
# Their number differs from that of the colours, so that no two calibrators share both.
MARKERS = "DsvP^Xd"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}


def write_figures(folder: Path, record: RunRecord, epochs: Sequence[Row] = ()) -> list[Path]:
    """Draw all figures of a run into a folder as PNG.

    Args:
        folder: the folder to write to, made where missing.
        record: record of the finished run.
        epochs: one row of scalars for each epoch, the source model (epoch −1) first; without rows, the
            figures over epochs are left out.

    Returns:
        The files written.
    """
    rows = list(epochs)
    figures: dict[str, Callable[[], Figure]] = {
        "seen_absent_curve": lambda: seen_absent_curve(record),
    }
    if record.probabilities is not None and _calibrators(record):
        figures["reliability"] = lambda: reliability(record)
    if record.stages.source is not None:
        figures["gains"] = lambda: gains(record)
    if rows:
        figures["accuracies"] = lambda: accuracies_over_epochs(record, rows)
        figures["logit_scales"] = lambda: logit_scales_over_epochs(record, rows)
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, draw in figures.items():
            path = folder / f"{name}.png"
            with written_whole(path) as temporary:
                draw().savefig(temporary)
            paths.append(path)
    return paths


def seen_absent_curve(record: RunRecord) -> Figure:
    """Acc_{U/Y} against Acc_{S/Y} over γ; markers for source, γ = 0, every γ̂ and γ* (the paper's curve)."""
    figure = Figure(figsize=(9.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    evaluated = "fine-tuned" if record.checkpoint is None else "checkpoint"
    models = [(evaluated, record.stages.fine_tuned, BLUE)]
    if record.stages.source is not None:
        models.insert(0, ("source", record.stages.source, GREY))
    for name, stage, colour in models:
        if stage.curve is not None and None not in stage.curve["acc_absent"]:
            seen = [100 * (value or 0.0) for value in stage.curve["acc_seen"]]
            absent = [100 * (value or 0.0) for value in stage.curve["acc_absent"]]
            area = stage.metrics["ausuc"] or 0.0
            axes.plot(seen, absent, color=colour, label=f"{name}, AUSUC {100 * area:.1f}", zorder=1)
    markers: list[tuple[str, StageRecord, str, str]] = [
        (name if stage is record.stages.source else f"{name}, γ = 0", stage, colour, "o")
        for name, stage, colour in models
    ]
    for index, (name, stage) in enumerate(_calibrators(record).items()):
        colour = CALIBRATORS[index % len(CALIBRATORS)]
        # A model of its own lies on no curve that is drawn.
        own = ", own weights" if stage.details.get("alpha", 1.0) != 1.0 else ""
        markers.append(
            (
                f"{stage_title(name, stage)}, γ = {stage.gamma:.1f}{own}",
                stage,
                colour,
                MARKERS[index % len(MARKERS)],
            )
        )
    if "oracle" in record.stages.calibrated:
        oracle = record.stages.calibrated["oracle"]
        markers.append((f"{stage_title('oracle', oracle)}, γ* = {oracle.gamma:.1f}", oracle, "black", "*"))
    for label, stage, colour, marker in markers:
        x, y = stage.metrics["acc_seen"], stage.metrics["acc_absent"]
        if x is not None and y is not None:
            size = 130 if marker == "*" else 55
            axes.scatter(
                100 * x,
                100 * y,
                color=colour,
                marker=marker,
                s=size,
                label=label,
                zorder=2,
                edgecolors="white",
            )
    axes.set(xlabel="seen accuracy S/Y (%)", ylabel="absent accuracy U/Y (%)", xlim=(0, 102), ylim=(0, 102))
    axes.set_title(f"Seen–absent curve: one scalar γ trades the two\n{record.name}")
    if axes.collections:
        figure.legend(loc="outside right upper")
    else:
        axes.text(50, 50, "no absent-class samples were evaluated", ha="center")
    return figure


def accuracies_over_epochs(record: RunRecord, epochs: list[Row]) -> Figure:
    """Validation accuracies by epoch: γ = 0 on the left; calibrated and NCM on the right.

    Where only seen classes are validated, the right panel says so: γ can only take from their accuracy.
    """
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    figure.suptitle(record.name)
    whole = _has(epochs, "acc_absent")
    left, right = figure.subplots(1, 2, sharey=True)
    for key, label, colour in (
        ("acc_seen", "S/Y", SEEN),
        ("acc_absent", "U/Y", ABSENT),
        ("acc_all", "Y/Y", ALL) if whole else ("acc_seen_within", "S/S", ALL),
    ):
        _line(left, epochs, key, label, colour, percent=True)
    left.set(title="Fine-tuned, γ = 0", ylabel="validation accuracy (%)")
    _line(right, epochs, "acc_all", "γ = 0", ALL, percent=True)
    calibrators = _calibrators(record)
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
    _finish_epoch_axes(left, right)
    left.set_ylim(0, 102)
    return figure


def logit_scales_over_epochs(record: RunRecord, epochs: list[Row]) -> Figure:
    """Mean logits of absent-class samples by epoch, if any, and how far seen columns outgrow absent ones."""
    of_absent = (
        ("logit_ground_truth_on_absent", "ground truth", ABSENT),
        ("logit_absent_rival_on_absent", "largest other absent", ORANGE),
        ("logit_seen_max_on_absent", "largest seen", SEEN),
    )
    whole = _has(epochs, *(key for key, _, _ in of_absent))
    figure = Figure(figsize=(10 if whole else 5.4, 4.8), layout="constrained")
    figure.suptitle(record.name)
    *others, right = figure.subplots(1, 1 + whole, squeeze=False)[0]
    for left in others:
        for key, label, colour in of_absent:
            _line(left, epochs, key, label, colour)
        left.set(title="On absent-class samples", ylabel="mean logit")
    for key, label, colour in (
        ("logit_gap_on_seen", "on seen samples", SEEN),
        ("logit_gap_on_absent", "on absent samples", ABSENT),
    ):
        _line(right, epochs, key, label, colour)
    right.set(title="Gap: seen minus absent columns", ylabel="mean logit gap")
    _finish_epoch_axes(*others, right)
    return figure


def gains(record: RunRecord) -> Figure:
    """Accuracy gain from source to fine-tuned, network classifier against NCM (the paper's bars)."""
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.38
    groups = (("acc_seen", "seen S/Y"), ("acc_absent", "absent U/Y"), ("acc_all", "all Y/Y"))
    kinds = (("", "network, γ = 0", BLUE, -width / 2), ("ncm_", "NCM on features", NCM, width / 2))
    for prefix, label, colour, offset in kinds:
        for position, (key, _) in enumerate(groups):
            before = None if record.stages.source is None else record.stages.source.metrics.get(prefix + key)
            after = record.stages.fine_tuned.metrics.get(prefix + key)
            if before is None or after is None:
                continue
            gain = 100 * (after - before)
            first = label if position == 0 else None
            bars = axes.bar(position + offset, gain, width, color=colour, label=first)
            axes.bar_label(bars, [f"{gain:+.1f}".replace("-", "−")], padding=2, fontsize=9)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(groups)), [name for _, name in groups])
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.15)
    axes.set(ylabel="gain over source (points)")
    axes.set_title(f"Fine-tuning: classifier against features\n{record.name}")
    _legend_below(axes)
    return figure


def reliability(record: RunRecord) -> Figure:
    """Accuracy against top-label confidence at γ = 0, with a calibrator's γ, and with a temperature as well.

    The calibrator is the deployed one, or the first where none is deployed; the temperature is the one that
    was fitted on held-out seen samples, if any.
    """
    assert record.probabilities is not None
    calibrators = _calibrators(record)
    name = record.deployed if record.deployed in calibrators else next(iter(calibrators))
    title, calibrated = stage_title(name, calibrators[name]), record.probabilities[name]
    lines: list[tuple[str, Measured, str, str]] = [
        ("γ = 0", record.probabilities["fine_tuned"], GREY, "o"),
        (f"{title}, γ = {calibrators[name].gamma:.1f}", calibrated, GREEN, "s"),
    ]
    if "held_out" in calibrated.temperatures:
        scaled = calibrated.temperatures["held_out"]
        lines.append((f"the same, T = {scaled.temperature:.2f} fitted on V", scaled, PURPLE, "v"))
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    figure.suptitle(f"Confidence against accuracy, bins of equal mass\n{record.name}")
    groups = [group for group in ("seen", "absent", "all") if group in calibrated.reliability]
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, group in zip(panels, groups, strict=True):
        axes.plot((0, 100), (0, 100), color="black", linewidth=0.8, linestyle=":")
        errors = []
        for label, measured, colour, marker in lines:
            bins = measured.reliability[group]
            x, y = ([100 * value for value in values] for values in (bins.confidence, bins.accuracy))
            axes.plot(x, y, color=colour, marker=marker, markersize=4, label=label)
            errors.append(f"{100 * (measured.metrics[f'ece_{group}'] or 0.0):.1f}")
        axes.set(xlabel="confidence (%)", xlim=(0, 104), ylim=(0, 104), xticks=range(20, 101, 20))
        axes.set_title(f"{group} classes\nECE {' → '.join(errors)} %", fontsize=10)
    first = figure.axes[0]
    first.set_ylabel("accuracy (%)")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=len(lines))
    return figure


def _calibrators(record: RunRecord) -> dict[str, StageRecord]:
    return {name: stage for name, stage in record.stages.calibrated.items() if stage.lane != "oracle"}


def _has(epochs: list[Row], *keys: str) -> bool:
    return any(row.get(key) is not None for row in epochs for key in keys)


def _line(
    axes: Any, epochs: list[Row], key: str, label: str, colour: str, percent: bool = False, style: str = "-"
) -> None:
    points = [(row["epoch"], row[key]) for row in epochs if row.get(key) is not None]
    if points:
        x, y = zip(*points, strict=True)
        scaled = [100 * value for value in y] if percent else y
        axes.plot(x, scaled, style, color=colour, label=label, marker=".")


def _finish_epoch_axes(*panels: Any) -> None:
    for axes in panels:
        axes.set_xlabel("epoch (−1: source model)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.lines:
            _legend_below(axes)


def _legend_below(axes: Any) -> None:
    """Put the legend where it covers nothing."""
    columns = 3 if len(axes.get_legend_handles_labels()[0]) <= 3 else 2
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=columns)
