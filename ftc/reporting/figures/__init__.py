"""Figures of a run, drawn from its record and its epochs: a file a subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from ftc.reporting.figures.curve import seen_absent_curve
from ftc.reporting.figures.epochs import (
    Row,
    accuracies_over_epochs,
    has,
    logit_scales_over_epochs,
    weight_norms_over_epochs,
)
from ftc.reporting.figures.features import class_shift
from ftc.reporting.figures.gains import gains
from ftc.reporting.figures.head import head_updates
from ftc.reporting.figures.reliability import reliability
from ftc.reporting.figures.style import STYLE, Format, calibrators_of, save
from ftc.reporting.figures.sweep import ScoreRow, sweep_scores
from ftc.results import RunRecord

__all__ = [
    "ScoreRow",
    "accuracies_over_epochs",
    "class_shift",
    "gains",
    "head_updates",
    "logit_scales_over_epochs",
    "reliability",
    "seen_absent_curve",
    "sweep_scores",
    "weight_norms_over_epochs",
    "write_drawn",
    "write_figures",
    "write_sweep_figure",
]


def write_figures(
    folder: Path, record: RunRecord, epochs: Sequence[Row] = (), formats: Sequence[Format] = ("png",)
) -> list[Path]:
    """Draw all figures of a run into a folder.

    Args:
        folder: the folder to write to, made where missing.
        record: record of the finished run.
        epochs: one row of scalars for each epoch, the source model (epoch −1) first; without rows, the
            figures over epochs are left out.
        formats: the formats to write each figure in.

    Returns:
        The files written.
    """
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, draw in _figures(record, list(epochs)).items():
            figure = draw()
            for kind in formats:
                paths.append(folder / f"{name}.{kind}")
                save(figure, paths[-1])
    return paths


def write_drawn(folder: Path, figures: Mapping[str, Figure], formats: Sequence[Format] = ("png",)) -> None:
    """Write figures, by name, into a folder."""
    for name, figure in figures.items():
        for kind in formats:
            save(figure, folder / f"{name}.{kind}")


def write_sweep_figure(
    path: Path,
    rows: Sequence[ScoreRow],
    x: str,
    series: str | None,
    metric: str,
    formats: Sequence[Format] = ("png",),
) -> None:
    """Draw `sweep_scores` into files that have the path's name and the formats' suffixes."""
    with matplotlib.rc_context(STYLE):
        figure = sweep_scores(rows, x, series, metric)
        for kind in formats:
            save(figure, path.with_name(f"{path.name}.{kind}"))


def _figures(record: RunRecord, rows: list[Row]) -> dict[str, Callable[[], Figure]]:
    """Those figures that there are numbers for."""
    figures: dict[str, Callable[[], Figure]] = {
        "seen_absent_curve": lambda: seen_absent_curve(record),
    }
    if record.probabilities is not None and calibrators_of(record):
        figures["reliability"] = lambda: reliability(record)
    if record.stages.source is not None:
        figures["gains"] = lambda: gains(record)
    if record.analyses is not None:
        figures["class_shift"] = lambda: class_shift(record)
        if record.analyses.head_updates is not None:
            figures["head_updates"] = lambda: head_updates(record)
    if rows:
        figures["accuracies"] = lambda: accuracies_over_epochs(record, rows)
        figures["logit_scales"] = lambda: logit_scales_over_epochs(record, rows)
    if has(rows, "head_weight_norm_seen", "head_weight_norm_absent"):
        figures["weight_norms"] = lambda: weight_norms_over_epochs(record, rows)
    return figures
