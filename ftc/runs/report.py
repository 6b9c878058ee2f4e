"""``python -m ftc.report``: tables, figures and a page of finished runs, from their folders alone."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ftc.config.reports import ReportConfig
from ftc.files import written_whole
from ftc.reporting.figures import write_drawn, write_figures, write_sweep_figure
from ftc.reporting.names import key_title
from ftc.reporting.table import Grid
from ftc.runs.collect import Collected, collect
from ftc.runs.finished import FinishedRun
from ftc.runs.groups import Group, grouped
from ftc.runs.origin import origin_of
from ftc.runs.page import write_page
from ftc.runs.planes import plane_figures
from ftc.runs.scores import score_rows, score_tables


def report(config: ReportConfig) -> dict[str, Any]:
    """Print the tables in Markdown, and write them, figures and page into the report's folder.

    Returns:
        An empty dict: there are no scalars for a sweep's table.

    Raises:
        InputError: no finished run is there, or see `score_tables` and `comparison`.
    """
    found = collect([Path(folder) for folder in config.runs])
    groups = grouped(found.runs, config.by if config.view == "scores" else ())
    grids = list(_grids(config, found.runs, groups))
    origin = origin_of("report", found.runs)
    text = _markdown(grids, origin, found)
    print(text)
    folder = Path(_folder(config, origin))
    folder.mkdir(parents=True, exist_ok=True)
    _write_tables(folder, grids, origin, text)
    if config.figures:
        _draw(folder / "figures", found.runs, groups, config)
    if config.page:
        write_page(folder / "report.html", found.runs, origin, config.thumbnails, config.allow_targets)
    print(f"Report: {folder}", file=sys.stderr)
    return {}


def _grids(config: ReportConfig, runs: Sequence[FinishedRun], groups: Sequence[Group]) -> Iterator[Grid]:
    if config.view == "scores":
        return score_tables(groups, config)
    # Gaps and methods want Lightning, whose import takes longer than all of the above.
    from ftc.runs.compare import comparison, with_oracle

    return comparison(with_oracle(runs), config, methods=config.view == "methods")


def _folder(config: ReportConfig, origin: Mapping[str, str]) -> str:
    """The report's folder: ``to``, else one that is named by the runs and the view."""
    if config.to is not None:
        return config.to
    name = Path(config.runs[0]).resolve().name
    return f"outputs/reports/{name}-{config.view}-{origin['runs'][-16:-8]}"


def _markdown(grids: Sequence[Grid], origin: Mapping[str, str], found: Collected) -> str:
    parts = [f"<!-- {'; '.join(f'{key}: {value}' for key, value in origin.items())} -->"]
    for grid in grids:
        parts += [f"### {grid.title}", grid.markdown(), *([" ".join(grid.notes)] if grid.notes else [])]
    if found.left_out:
        parts += [f"### Left out: {len(found.left_out)} without results"]
        parts += ["\n".join(f"- {left.name}: {left.reason}" for left in found.left_out)]
    return "\n\n".join(parts) + "\n"


def _write_tables(folder: Path, grids: Sequence[Grid], origin: Mapping[str, str], text: str) -> None:
    """Write ``tables.md``, ``.tex``, ``.csv`` and ``.parquet``."""
    comment = [f"{key}: {value}" for key, value in origin.items()]
    latex = "\n\n".join(["\n".join(f"% {line}" for line in comment), *(grid.latex() for grid in grids)])
    for name, content in (("tables.md", text), ("tables.tex", latex + "\n")):
        with written_whole(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    rows = [row for grid in grids for row in grid.tidy()]
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    with written_whole(folder / "tables.parquet") as temporary:
        pq.write_table(table.replace_schema_metadata({f"ftc.{k}": v for k, v in origin.items()}), temporary)
    with written_whole(folder / "tables.csv") as temporary, temporary.open("wb") as file:
        file.write("".join(f"# {line}\n" for line in comment).encode())
        pa_csv.write_csv(table, file)


def _draw(folder: Path, runs: Sequence[FinishedRun], groups: Sequence[Group], config: ReportConfig) -> None:
    """Figures of a run, or of what differs in a sweep."""
    if len(runs) == 1:
        (run,) = runs
        record = run.record.model_copy(update={"analyses": run.analyses()})
        write_figures(folder, record, run.epochs(), config.figures)
        write_drawn(folder, plane_figures(run), config.figures)
    elif groups[0].values:
        x, series = _axes(groups)
        deployed = Counter(run.record.deployed for run in runs if run.record.deployed).most_common(1)
        stages = {"ausuc": ["source", "fine_tuned"]}
        stages["acc_all"] = ["source", "fine_tuned", *(str(name) for name, _ in deployed), "oracle"]
        for metric, of_metric in stages.items():
            path = folder / f"{metric}_by_{key_title(x).replace(' ', '_')}"
            rows = score_rows(groups, metric, of_metric)
            write_sweep_figure(path, rows, x, series, metric, config.figures)


def _axes(groups: Sequence[Group]) -> tuple[str, str | None]:
    """The key of the horizontal axis, numbers first, then the one with most values; and that of the lines."""
    values = {key: {group.values[key] for group in groups} for key in groups[0].values}
    x, *others = sorted(values, key=lambda key: (not _are_numbers(values[key]), -len(values[key])))
    # A line for each of many numbers would say less than one for each of a few names.
    others.sort(key=lambda key: (_are_numbers(values[key]), -len(values[key])))
    return x, others[0] if others else None


def _are_numbers(texts: Iterable[str]) -> bool:
    try:
        return all(math.isfinite(float(text)) for text in texts)
    except ValueError:
        return False
