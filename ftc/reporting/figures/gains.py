"""What fine-tuning gains and loses."""

from __future__ import annotations

from matplotlib.figure import Figure

from ftc.reporting.figures.style import BLUE, NCM, legend_below
from ftc.results import RunRecord


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
    legend_below(axes)
    return figure
