"""How far confidence can be relied on."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from ftc.reporting.figures.style import GREEN, GREY, PURPLE, calibrators_of, titled
from ftc.reporting.names import stage_title
from ftc.results import Measured, RunRecord


def reliability(record: RunRecord) -> Figure:
    """Accuracy against top-label confidence at γ = 0, with a calibrator's γ, and with a temperature as well.

    The calibrator is the deployed one, or the first where none is deployed; the temperature is the one that
    was fitted on held-out seen samples, if any.
    """
    assert record.probabilities is not None
    calibrators = calibrators_of(record)
    name = record.deployed if record.deployed in calibrators else next(iter(calibrators))
    title, calibrated = stage_title(name, calibrators[name]), record.probabilities[name]
    lines: list[tuple[str, Measured, dict[str, Any]]] = [
        ("γ = 0", record.probabilities["fine_tuned"], {"color": GREY, "marker": "o"}),
        (f"{title}, γ = {calibrators[name].gamma:.1f}", calibrated, {"color": GREEN, "marker": "s"}),
    ]
    if "held_out" in calibrated.temperatures:
        scaled = calibrated.temperatures["held_out"]
        # A temperature near 1 moves nothing: the line below stays visible.
        look = {"color": PURPLE, "marker": "v", "linestyle": "--", "fillstyle": "none", "markersize": 7}
        lines.append((f"the same, T = {scaled.temperature:.2f} fitted on V", scaled, look))
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    titled(figure, "Confidence against accuracy, bins of equal mass", record.name)
    groups = [group for group in ("seen", "absent", "all") if group in calibrated.reliability]
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, group in zip(panels, groups, strict=True):
        axes.plot((0, 100), (0, 100), color="black", linewidth=0.8, linestyle=":")
        errors = []
        for label, measured, look in lines:
            bins = measured.reliability[group]
            x, y = ([100 * value for value in values] for values in (bins.confidence, bins.accuracy))
            axes.plot(x, y, label=label, **{"markersize": 4, **look})
            errors.append(f"{100 * (measured.metrics[f'ece_{group}'] or 0.0):.1f}")
        axes.set(xlabel="confidence (%)", xlim=(0, 104), ylim=(0, 104), xticks=range(20, 101, 20))
        axes.set_title(f"{group} classes\nECE {' → '.join(errors)} %", fontsize=10)
    first = figure.axes[0]
    first.set_ylabel("accuracy (%)")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=len(lines))
    return figure
