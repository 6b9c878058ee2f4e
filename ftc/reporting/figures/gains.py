"""What fine-tuning gains and loses."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from ftc.reporting.figures.style import BLUE, NCM, titled
from ftc.reporting.table import signed
from ftc.results import METRICS, RunRecord

_METRICS = ("acc_all", "acc_seen", "acc_absent", "acc_seen_within", "acc_absent_within")
# Prefix of the metrics, name, and colour of each classifier.
_CLASSIFIERS = (("", "network, γ = 0", BLUE), ("ncm_", "NCM on features", NCM))
_WIDTH = 0.2


def gains(record: RunRecord) -> Figure:
    """Accuracies of network and NCM before and after fine-tuning, with the gain above (the paper's bars).

    What was not measured has no bar, and the figure says so.
    """
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot()
    evaluated = "fine-tuned" if record.checkpoint is None else "checkpoint"
    missing, heights = [], list[float]()
    for number, (prefix, name, colour) in enumerate(_CLASSIFIERS):
        found = {metric: _before_and_after(record, prefix + metric) for metric in _METRICS}
        pairs = {metric: pair for metric, pair in found.items() if pair is not None}
        lacking = ", ".join(METRICS[metric] for metric in _METRICS if metric not in pairs)
        missing += [name if not pairs else f"{name}: {lacking}"] if lacking else []
        for metric, pair in pairs.items():
            middle = _METRICS.index(metric) + (2 * number - 1) * (_WIDTH + 0.02)
            _bars(axes, middle, pair, colour)
            heights += pair
        if pairs:
            axes.bar(0, 0, color=colour, alpha=0.35, hatch="///", edgecolor="white", label=f"{name}: source")
            axes.bar(0, 0, color=colour, label=f"{name}: {evaluated}")
    names = {metric: METRICS[metric] for metric in _METRICS}
    axes.set_xticks(range(len(_METRICS)), list(names.values()), fontsize=11)
    axes.grid(axis="x", visible=False)
    top = 1.17 * max(heights, default=100.0)
    axes.set(
        ylabel="accuracy (%)",
        xlim=(-0.6, len(_METRICS) - 0.4),
        ylim=(0, top),
        yticks=range(0, min(101, int(top) + 1), 20),
    )
    if missing:
        axes.set_xlabel(f"not measured in this run: {'; '.join(missing)}", fontsize=9)
    titled(figure, "Fine-tuning: classifier against features, with the gain in points", record.name)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _before_and_after(record: RunRecord, metric: str) -> tuple[float, float] | None:
    """A metric of the source and of the fine-tuned model in percent; None where either lacks it."""
    assert record.stages.source is not None
    before, after = (s.metrics.get(metric) for s in (record.stages.source, record.stages.fine_tuned))
    return None if before is None or after is None else (100 * before, 100 * after)


def _bars(axes: Any, middle: float, pair: tuple[float, float], colour: str) -> None:
    looks: tuple[dict[str, Any], ...] = ({"alpha": 0.35, "hatch": "///", "edgecolor": "white"}, {})
    for side, value, look in zip((-1, 1), pair, looks, strict=True):
        bar = axes.bar(middle + side * _WIDTH / 2, value, _WIDTH, color=colour, **look)
        axes.bar_label(bar, [f"{value:.1f}"], padding=1, fontsize=7)
    gain = signed(pair[1] - pair[0])
    above = {"xytext": (0, 13), "textcoords": "offset points"}
    axes.annotate(gain, (middle, max(pair)), ha="center", fontsize=9, fontweight="bold", **above)
