"""The idea in one picture, drawn from a run of the digits: ``python -m docs._generate.idea RUN TO.png``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ftc.benchmarks.digits import mnist
from ftc.reporting.figures.style import ABSENT, SEEN, STYLE, save
from ftc.runs.finished import FinishedRun

# The paper's own calibrator: γ alone, no weights moved.
CALIBRATOR = "alg"


def draw(run: FinishedRun) -> Figure:
    """One image of an absent class: its logits in the source model, after fine-tuning, and with γ.

    Of the test images that the source model has right, fine-tuning takes for a seen class, and γ brings back,
    it is the one for which fine-tuning's error is of median size.
    """
    stages = run.record.stages
    assert stages.source is not None
    partition, gamma = run.partition, stages.calibrated[CALIBRATOR].gamma
    logits = {name: run.outputs().of(name, "test", "logits").numpy() for name in ("source", "fine_tuned")}
    target = run.outputs().of("fine_tuned", "test", "target").numpy()
    absent = np.isin(np.arange(partition.num_classes), partition.absent)
    logits["calibrated"] = logits["fine_tuned"] + gamma * absent
    right = {name: z.argmax(1) == target for name, z in logits.items()}
    lost = np.flatnonzero(absent[target] & right["source"] & ~right["fine_tuned"] & right["calibrated"])
    errors = logits["fine_tuned"][lost].max(1) - logits["fine_tuned"][lost, target[lost]]
    sample = int(lost[errors.argsort()[len(lost) // 2]])

    accuracies = {
        "source": stages.source,
        "fine_tuned": stages.fine_tuned,
        "calibrated": stages.calibrated[CALIBRATOR],
    }
    heads = {
        "source": "Pre-trained",
        "fine_tuned": f"Fine-tuned on {', '.join(map(str, partition.seen))}",
        "calibrated": f"+ γ = {gamma:.1f} on absent classes",
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.7), layout="constrained")
        panels = figure.subplots(1, 4, width_ratios=(0.8, 1.4, 1.4, 1.4), sharey=False)
        panels[0].imshow(np.asarray(mnist("test").decode(sample)), cmap="gray_r")
        panels[0].set_axis_off()
        panels[0].set_title(f"A {target[sample]},\nan absent class")
        low = min(z[sample].min() for z in logits.values())
        high = max(z[sample].max() for z in logits.values())
        for axes, (name, z) in zip(panels[1:], logits.items(), strict=True):
            bars = axes.bar(range(len(absent)), z[sample], color=np.where(absent, ABSENT, SEEN))
            if name == "calibrated":
                before = logits["fine_tuned"][sample]
                axes.bar(np.flatnonzero(absent), before[absent], fill=False, edgecolor="black", linestyle=":")
            for bar, is_absent in zip(bars, absent, strict=True):
                bar.set_hatch("//" if is_absent else "")
                bar.set_edgecolor("white")
            told, metrics = int(z[sample].argmax()), accuracies[name].metrics
            axes.annotate(
                "✓" if told == target[sample] else "✗",
                (told, z[sample, told]),
                ha="center",
                xytext=(0, 2),
                textcoords="offset points",
                fontsize=14,
            )
            axes.set_title(f"{heads[name]}: “{told}”")
            axes.set_xlabel(
                f"seen {100 * metrics['acc_seen']:.0f} % right, absent {100 * metrics['acc_absent']:.0f} %"
            )
            axes.set_ylim(low - 1, high + 2)
            axes.set_xticks(range(len(absent)))
            axes.axhline(0, color="black", linewidth=0.8)
        panels[1].set_ylabel("logit")
        panels[1].bar(0, 0, color=SEEN, label="seen class")
        panels[1].bar(0, 0, color=ABSENT, hatch="//", edgecolor="white", label="absent class")
        panels[1].legend(loc="upper left", fontsize=8)
    return figure


if __name__ == "__main__":
    save(draw(FinishedRun.read(Path(sys.argv[1]))), Path(sys.argv[2]))
