"""The seen–absent curve."""

from __future__ import annotations

from matplotlib.figure import Figure

from ftc.reporting.figures.style import BLUE, CALIBRATORS, GREY, MARKERS, calibrators_of
from ftc.reporting.names import stage_title
from ftc.results import RunRecord, StageRecord


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
    for index, (name, stage) in enumerate(calibrators_of(record).items()):
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
