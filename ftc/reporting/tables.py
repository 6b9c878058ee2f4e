"""The tables that runs and sweeps end with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ftc.reporting.damage import damage_report, exceptions
from ftc.reporting.names import COLUMNS, INTERVAL_COLUMNS, percent, readable, stage_title
from ftc.reporting.table import signed
from ftc.results import LANES, Lane, Measured, RunRecord, StageRecord

MIN_WIDTH = 120

# Share of V up to which near copies are not told of: some images are alike though nothing links them.
MOST_NEAR_COPIES = 0.125


class _LastingConsole(Console):
    def on_broken_pipe(self) -> None:
        # Nobody reads any more, as after ``| head -1``; that must not end the work.
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(quiet: bool = False) -> Console:
    """A console wide enough for the tables, also in a file; it prints lines as they are."""
    width = max(Console().width, MIN_WIDTH)
    return _LastingConsole(width=width, quiet=quiet, soft_wrap=True, markup=False, highlight=False)


def print_record(
    out: Console,
    record: RunRecord,
    folder: Path,
    finished_before: bool,
    per_class: int = 0,
    probabilities: bool = False,
) -> None:
    """Print the end of a job: its tables, its times, the model to deploy, and its folder.

    Args:
        out: the console.
        record: the job's record.
        folder: its folder.
        finished_before: whether nothing was computed.
        per_class: how many classes to print one by one.
        probabilities: whether to print how good probabilities are.
    """
    of_probabilities = probability_tables(record) if probabilities else ()
    for table in (*results_tables(record), *of_probabilities, *per_class_tables(record, per_class)):
        out.print(table, soft_wrap=False)
    if record.own_domain is not None:
        out.print(str(record.own_domain))
    warn_of_near_copies(out, record.near_copies)
    warned = set(exceptions(record))
    for line in damage_report(record):
        out.print(line, style="yellow" if line in warned else None)
    if record.trainable is not None:
        out.print(f"Trained: {record.trainable:,} parameters")
    if record.timing:
        seconds = ", ".join(f"{name.replace('_', ' ')} {s:.1f} s" for name, s in record.timing.items())
        out.print(f"Time: {seconds}")
    if record.deployed is not None:
        out.print("* folded into checkpoints/calibrated.safetensors, under the names of the plain timm model")
    if finished_before:
        out.print("Finished before; nothing was computed. overwrite=true computes it again.", style="yellow")
    out.print(f"Run folder: {folder}")


def warn_of_near_copies(out: Console, share: float | None) -> None:
    """Print a line where more of V is nearly trained on than images of their own would be."""
    if share is not None and share > MOST_NEAR_COPIES:
        out.print(
            f"{100 * share:.0f} % of the held-out images are nearly copies of images that are trained on, so "
            "that accuracies and γ from them look better than they are. Name what belongs together, such as "
            "the frames of a video, in data.groups.",
            style="yellow",
        )


def results_tables(record: RunRecord) -> Iterator[Table]:
    """Yield one table for each lane, since calibrators of different lanes are not compared.

    Rows: source, fine-tuned, the lane's calibrators, the oracles. Accuracies, H and AUSUC in percent, γ in
    logits. Where the record has intervals, a table of them follows each table.
    """
    models = {} if record.stages.source is None else {"source": record.stages.source}
    models[record.evaluated] = record.stages.fine_tuned
    for lane in record.lanes() or ["seen_only"]:
        rows = {**models, **record.lane(lane), **record.lane("oracle")}
        yield _table(record, lane, rows)
        if any(stage.intervals for stage in rows.values()):
            yield _intervals(rows)


# Temperatures by key, as labels name them.
_FITTED_ON = {"held_out": "T on V", "pool": "T on pool"}
_PROBABILITY_COLUMNS = {
    "nll_all": "NLL\nY",
    "nll_seen": "NLL\nS",
    "nll_absent": "NLL\nU",
    "brier_all": "Brier\nY",
    "ece_all": "ECE\nY",
    "ece_seen": "ECE\nS",
    "ece_absent": "ECE\nU",
    "classwise_ece_all": "ECE by\nclass",
}
_BESIDE_ACCURACY = ("conf.\nS", "acc.\nS", "conf.\nU", "acc.\nU")


def probability_tables(record: RunRecord) -> Iterator[Table]:
    """Yield a table a lane of how good probabilities are, at T = 1 and at fitted temperatures.

    A temperature that was fitted on unlabelled images is in the table of their lane alone.
    """
    found, stages = record.probabilities, dict(record.rows())
    if found is None:
        return
    models = [name for name in ("source", "fine_tuned") if name in found]
    labels = {name: _label(name, stage) for name, stage in stages.items()}
    labels["fine_tuned"] = _label(record.evaluated, stages["fine_tuned"])
    for lane in record.lanes():
        table = Table(
            title=f"Probabilities, {LANES[lane]}",
            caption="NLL in nats, Brier from 0 to 2, the rest in percent: ECE, and mean confidence beside "
            "accuracy; of all (Y), seen (S) and absent (U) test images. T: temperature, fitted on held-out "
            "seen images (V), or on unlabelled ones as well (pool).",
        )
        table.add_column("")
        for heading in ("T", *_PROBABILITY_COLUMNS.values(), *_BESIDE_ACCURACY):
            table.add_column(heading, justify="right")
        for name in (*models, *record.lane(lane), *record.lane("oracle")):
            style = "dim" if stages[name].lane == "oracle" else None
            table.add_row(labels[name], "1", *_probability_cells(found[name]), style=style)
            for key, scaled in found[name].temperatures.items():
                if key == "held_out" or lane == "unlabelled":
                    cells = (f"{scaled.temperature:.2f}", *_probability_cells(scaled))
                    table.add_row(f"   {_FITTED_ON[key]}", *cells, style=style)
        yield table


def _probability_cells(found: Measured) -> Iterator[str]:
    for name in _PROBABILITY_COLUMNS:
        value = found.metrics[name]
        in_percent = "ece" in name
        yield percent(value) if in_percent or value is None else f"{value:.2f}"
    for group in ("seen", "absent"):
        yield percent(found.metrics[f"confidence_{group}"])
        bins = found.reliability.get(group)
        yield percent(None if bins is None else bins.mean_accuracy)


def per_class_tables(record: RunRecord, most: int) -> Iterator[Table]:
    """Yield the classes whose accuracy calibration changes most, and the confusions that it changes most.

    They are those of the deployed calibrator, or of the first where none is deployed.

    Args:
        record: the record.
        most: how many classes and confusions to list; 0 for no table.
    """
    found = record.per_class
    stages = record.stages.calibrated
    names = [] if found is None else [name for name in found.calibrated if stages[name].lane != "oracle"]
    if found is None or not most or not names:
        return
    name = record.deployed if record.deployed in names else names[0]
    title = stage_title(name, stages[name])
    groups = record.partition.partition().groups()
    table = Table(title=f"Classes that {title} changes most", caption="Percent. All are in per_class.csv.")
    for heading in ("class", "group"):
        table.add_column(heading)
    for heading in ("images", "γ = 0", title, "change"):
        table.add_column(heading, justify="right")
    before, after = found.fine_tuned, found.calibrated[name]
    for row in sorted(range(len(before)), key=lambda row: -abs(after[row] - before[row]))[:most]:
        change = signed(100 * (after[row] - before[row]))
        cells = (f"{found.num_samples[row]:,}", percent(before[row]), percent(after[row]), change)
        table.add_row(found.names[row], groups[found.columns[row]], *cells)
    yield table
    table = Table(title=f"Confusions that {title} changes most", caption="Numbers of images.")
    for heading in ("class", "taken for"):
        table.add_column(heading)
    for heading in ("γ = 0", title):
        table.add_column(heading, justify="right")
    for confusion in found.confusions[name][:most]:
        table.add_row(confusion.label, confusion.predicted, str(confusion.before), str(confusion.after))
    yield table


def sweep_table(
    rows: Sequence[Mapping[str, str]],
    swept: Sequence[str],
    objective: str | None,
    width: int | None = None,
) -> Table:
    """One row for each job: swept values, status, Y/Y of every stage, AUSUC, and the error of a failed job.

    Args:
        rows: rows of ``sweep.csv``, as text.
        swept: the overrides in which jobs differ.
        objective: the selection number whose best job gets a star; None for no star.
        width: characters that there is room for. Calibrators that do not fit are left out, the last ones
            first; None for all.
    """
    stages = [key for key in (rows[0] if rows else ()) if key.endswith("/acc_all")]
    numbers = {key: f"{readable(key.partition('/')[0])}\nY/Y" for key in stages if "oracle_" not in key}
    numbers["fine_tuned/ausuc"] = COLUMNS["ausuc"]
    best = None
    if objective is not None:
        key = f"selection/{objective}"
        numbers[key] = objective.replace("_", "\n", 1)
        best = max((row for row in rows if row.get(key)), key=lambda row: float(row[key]), default=None)
    numbers = {key: title for key, title in numbers.items() if any(row.get(key) for row in rows)}
    table = _sweep(rows, swept, numbers, best)
    main = {"source/acc_all", "fine_tuned/acc_all", "oracle/acc_all"}
    calibrators = [key for key in numbers if key in stages and key not in main]
    ruler = Console(width=10_000)
    while width is not None and calibrators and ruler.measure(table).maximum > width:
        numbers.pop(calibrators.pop())
        table = _sweep(rows, swept, numbers, best)
    return table


def _sweep(
    rows: Sequence[Mapping[str, str]],
    swept: Sequence[str],
    numbers: Mapping[str, str],
    best: Mapping[str, str] | None,
) -> Table:
    table = Table(title="Sweep", caption="Percent. All numbers are in sweep.csv.")
    for name in (*swept, "status"):
        table.add_column(name.replace(".", ".\n"), no_wrap=True)
    for title in numbers.values():
        table.add_column(title, justify="right", no_wrap=True)
    failed = any(row["error"] for row in rows)
    if failed:
        table.add_column("error", overflow="ellipsis", no_wrap=True, max_width=40)
    for row in rows:
        star = " *" if row is best else ""
        cells = [percent(float(row[key])) if row.get(key) else "–" for key in numbers]
        error = [row["error"]] if failed else []
        style = None if row["status"] == "finished" else "red"
        table.add_row(*(_value(row[key]) for key in swept), row["status"] + star, *cells, *error, style=style)
    return table


def _table(record: RunRecord, lane: Lane, rows: Mapping[str, StageRecord]) -> Table:
    partition = record.partition
    counts = " + ".join(f"{n:,} {group}" for group, n in record.num_samples.items() if n)
    method = "" if record.method is None else f"{record.method}, "
    seed = "" if record.seed is None else f"; seed {record.seed}"
    title = (
        f"{record.title or record.experiment}, {method}{LANES[lane]}\ntest images {counts}; seen columns "
        f"{_short(partition.seen)}, absent {_short(partition.absent)}{seed}"
    )
    table = Table(title=title, caption="Percent; γ in logits. An oracle looks at test labels: a bound.")
    table.add_column("")
    columns = [c for c in COLUMNS if any(stage.metrics.get(c) is not None for stage in rows.values())]
    for column in columns:
        table.add_column(COLUMNS[column], justify="right")
    table.add_column("γ", justify="right")
    table.add_column("data used")
    for key, stage in rows.items():
        cells = [percent(stage.metrics.get(column)) for column in columns]
        gamma = f"{stage.gamma:.2f}" if stage.lane else "0"
        style = "dim" if stage.lane == "oracle" else None
        table.add_row(_label(key, stage, record.deployed), *cells, gamma, ", ".join(stage.uses), style=style)
    return table


def _intervals(rows: Mapping[str, StageRecord]) -> Table:
    table = Table(
        title="Bootstrap intervals", caption="Percent; γ in logits. Accuracies hold γ as it was fitted."
    )
    table.add_column("")
    for name in (*INTERVAL_COLUMNS.values(), "γ"):
        table.add_column(name, justify="right")
    for key, stage in rows.items():
        cells = [_range(stage.intervals.get(column), 100) for column in INTERVAL_COLUMNS]
        table.add_row(_label(key, stage), *cells, _range(stage.intervals.get("gamma"), 1))
    return table


def _label(key: str, stage: StageRecord, deployed: str | None = None) -> str:
    title = stage_title(key, stage)
    label = f"+ {title}" if stage.lane else title
    return f"{label} *" if key == deployed else label


def _value(text: str) -> str:
    """A swept value; a long number is rounded to four digits."""
    try:
        return f"{float(text):.4g}" if len(text) > 8 else text
    except ValueError:
        return text


def _range(interval: tuple[float | None, float | None] | None, scale: float) -> str:
    if interval is None or interval[0] is None or interval[1] is None:
        return "–"
    digits = 1 if scale == 100 else 2
    return f"{scale * interval[0]:.{digits}f} to {scale * interval[1]:.{digits}f}"


def _short(columns: Sequence[int]) -> str:
    return " ".join(map(str, columns)) if len(columns) <= 10 else f"({len(columns)})"


def deployment_table(title: str, row: Mapping[str, float], formats: Mapping[str, Any]) -> Table:
    """The row of a model that is deployed, and the same computed from every format.

    Args:
        title: the model's name.
        row: the model's metrics, fractions by name.
        formats: ``row``, ``difference`` and ``agreement`` of each format, see
            `ftc.export.verification.Agreement`, by its title.
    """
    table = Table(
        title=title,
        caption="Percent; differences in logits. Formats were run without ftc, from image file to label.",
    )
    table.add_column("")
    columns = [c for c in INTERVAL_COLUMNS if row[c] == row[c]]
    for heading in (*(COLUMNS[column] for column in columns), "largest difference", "same label"):
        table.add_column(heading, justify="right")
    table.add_row("the run's model", *(percent(row[column]) for column in columns), "", "")
    for name, found in formats.items():
        cells = [percent(found.row[column]) for column in columns]
        table.add_row(name, *cells, f"{found.difference:.1e}", f"{100 * found.agreement:.2f}")
    return table


def tradeoff_table(
    rows: Sequence[tuple[float, float, float, tuple[float, float], tuple[float, float]]],
    marks: Mapping[float, str],
    origins: Sequence[str],
) -> Table:
    """The estimated trade-off between seen and absent accuracy.

    Args:
        rows: γ, estimates of S/Y and U/Y, and their intervals; ``nan`` for what nothing tells of.
        marks: what some γ are, in words.
        origins: the data that it rests on, in words.
    """
    table = Table(
        title="Estimated trade-off",
        caption=f"Percent, with 95 % intervals; γ in logits. It rests on {', '.join(origins)}.",
    )
    for heading in ("γ", "S/Y", "95 %", "U/Y", "95 %"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for gamma, seen, absent, of_seen, of_absent in rows:
        cells = [f"{gamma:.2f}"]
        for value, interval in ((seen, of_seen), (absent, of_absent)):
            known = value == value
            cells += [percent(value) if known else "–", _range(interval, 100) if known else ""]
        table.add_row(*cells, marks.get(gamma, ""), style="bold" if gamma in marks else None)
    return table
