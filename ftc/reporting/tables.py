"""The table a run ends with."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ftc.reporting.names import COLUMNS, stage_name
from ftc.results import RunRecord

MIN_WIDTH = 120


def console(quiet: bool = False) -> Console:
    """A console wide enough for the table, also where output goes to a file."""
    return Console(width=max(Console().width, MIN_WIDTH), quiet=quiet)


def results_table(record: RunRecord) -> Table:
    """Rows: source, fine-tuned, one a calibrator, oracle. Accuracies, H and AUSUC in percent, γ in logits."""
    partition = record.partition
    counts = " + ".join(f"{n:,} {group}" for group, n in record.num_samples.items() if n)
    title = (
        f"{record.experiment}: test images {counts}; seen classes {_short(partition['seen'])}, "
        f"absent {_short(partition['absent'])}; seed {record.seed}"
    )
    table = Table(title=title, caption="Percent; γ in logits. The oracle looks at test labels: a bound.")
    table.add_column("")
    for name in COLUMNS.values():
        table.add_column(name, justify="right")
    table.add_column("γ", justify="right")
    table.add_column("data used")
    for key, stage in record.rows():
        calibrated = key in record.calibrated
        label = f"+ {stage_name(key)}" if calibrated else stage_name(key)
        label += " *" if key == record.deployed else ""
        cells = [_percent(stage.metrics.get(column)) for column in COLUMNS]
        gamma = f"{stage.gamma:.2f}" if calibrated else "0"
        style = "dim" if key == "oracle" else None
        table.add_row(label, *cells, gamma, ", ".join(stage.uses), style=style)
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _short(columns: list[int]) -> str:
    return " ".join(map(str, columns)) if len(columns) <= 10 else f"({len(columns)})"
