"""A self-contained HTML page of one run or several: tables are made here, what moves in ``page.js``."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from ftc.reporting.damage import damage_report
from ftc.reporting.names import COLUMNS, INTERVAL_COLUMNS, decimal, lane_title, percent, stage_title
from ftc.results import METRICS, Lane, RunRecord, StageRecord

# Cells a side of the unit square: points of a curve in one cell look like one.
_CELLS = 512
# The same of the small curves, one an epoch.
_EPOCH_CELLS = 128

# Numbers of an epoch; the first three are also those of its calibrators.
_OF_EPOCHS = (
    *("acc_all", "acc_seen", "acc_absent", "acc_seen_within", "acc_absent_within"),
    *("logit_gap_on_seen", "logit_gap_on_absent"),
)
# Numbers of the fine-tuned model at γ = 0 in the list of runs.
_LISTED = ("acc_all", "acc_seen", "acc_absent", "ausuc")


@dataclass(frozen=True)
class PageModel:
    """A model's test logits, reduced to what follows from them at any γ.

    Attributes:
        name: key of the stage that the logits are of.
        title: the model's name in print.
        margin: max_F z − max_U z, float64 (N,); a sample is sent to U exactly when γ > margin.
        fixed: leading columns argmax_F z, (N,).
        absent: leading columns argmax_U z, (N,).
        unmoved: AUSUC and the accuracies that γ does not move, fractions by name, or ``nan``.
    """

    name: str
    title: str
    margin: npt.NDArray[np.float64]
    fixed: npt.NDArray[np.int64]
    absent: npt.NDArray[np.int64]
    unmoved: Mapping[str, float]


@dataclass(frozen=True)
class PageImages:
    """The test images of a run under all of its models.

    Attributes:
        target: labels, head columns (N,).
        ids: rows of the run's reader (N,).
        average: ``sample`` or ``class``, what accuracies are means over.
        models: the models; the fine-tuned one, or the evaluated checkpoint, is among them.
    """

    target: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    average: str
    models: Sequence[PageModel]


@dataclass(frozen=True)
class PageRun:
    """What the page tells of a run.

    Attributes:
        record: the run's record.
        folder: name of the run's folder, which tells it from all others.
        class_names: one name for each head column.
        config: the run's configuration.
        images: its test images; None where the page has none of them.
        epochs: one row for each epoch, see `ftc.runs.finished.FinishedRun.epochs`.
        differs: values of the keys in which the page's runs differ, as text.
        notes: what the page lacks, sentences.
        thumbnails: small images, data URIs by row of the run's reader.
    """

    record: RunRecord
    folder: str
    class_names: Sequence[str]
    config: Mapping[str, Any]
    images: PageImages | None = None
    epochs: Sequence[Mapping[str, Any]] = ()
    differs: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    thumbnails: Mapping[int, str] = field(default_factory=dict)


def page_html(runs: Iterable[PageRun], provenance: Mapping[str, str]) -> str:
    """The page as text: HTML, styles, script and data in one.

    Args:
        runs: the runs, at least one, in the order of their list. They are taken one by one.
        provenance: how the page was made: labels and texts.
    """
    data, heads, details, rows = [], [], [], []
    for number, run in enumerate(runs):
        content = _json(run_data(run))
        data.append(f'<script type="application/json" id="data-{number}">{content}</script>')
        heads.append(_head(number, run))
        details.append(_details(number, run))
        # The list of runs needs no images, which may be many.
        rows.append(replace(run, images=None))
    title = rows[0].record.name if len(rows) == 1 else f"{len(rows)} runs"
    assets = files("ftc.reporting")
    return Template((assets / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style=(assets / "page.css").read_text(encoding="utf-8"),
        script=(assets / "page.js").read_text(encoding="utf-8"),
        runs=_run_list(rows) if len(rows) > 1 else "",
        heads="\n".join(heads),
        details="\n".join(details),
        provenance=_facts(provenance.items()),
        data="\n".join(data),
    )


def run_data(run: PageRun) -> dict[str, Any]:
    """The data of a run that ``page.js`` works with, ready for JSON."""
    record, images = run.record, run.images
    groups = np.zeros(record.partition.num_classes, dtype=np.uint8)
    groups[list(record.partition.seen)] = 1
    groups[list(record.partition.absent)] = 2
    main = record.evaluated
    owners = {main} if images is None else {model.name for model in images.models}
    return {
        "name": record.name,
        "classes": list(run.class_names),
        "groups": groups.tolist(),
        "main": main,
        "models": [] if images is None else [_model(model) for model in images.models],
        "average": "sample" if images is None else images.average,
        "target": None if images is None else _array(images.target),
        "ids": None if images is None else _array(images.ids),
        "curves": _recorded_curves(record) if images is None else {},
        "calibrators": [
            _calibrator(name, stage, name if name in owners else main)
            for name, stage in record.stages.calibrated.items()
        ],
        "epochs": [_epoch(row, record.stages.calibrated) for row in run.epochs],
        "thumbnails": {str(row): uri for row, uri in run.thumbnails.items()} if images else {},
    }


def _model(model: PageModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "title": model.title,
        "margin": _array(model.margin),
        "fixed": _array(model.fixed),
        "absent": _array(model.absent),
        "unmoved": {name: _number(value) for name, value in model.unmoved.items()},
    }


def _calibrator(name: str, stage: StageRecord, model: str) -> dict[str, Any]:
    interval = stage.intervals.get("gamma")
    return {
        "name": name,
        "title": stage_title(name, stage),
        "lane": stage.lane or "seen_only",
        "gamma": stage.gamma,
        "interval": None if interval is None or None in interval else interval,
        "model": model,
        "acc_seen": stage.metrics.get("acc_seen"),
        "acc_absent": stage.metrics.get("acc_absent"),
    }


def _recorded_curves(record: RunRecord) -> dict[str, Any]:
    """The curves of the record, for drawing alone."""
    stages = {"source": record.stages.source, record.evaluated: record.stages.fine_tuned}
    found = {
        name: _drawn(stage.curve["acc_seen"], stage.curve["acc_absent"], _CELLS)
        for name, stage in stages.items()
        if stage is not None and stage.curve is not None
    }
    return {name: curve for name, curve in found.items() if curve is not None}


def _epoch(row: Mapping[str, Any], calibrators: Iterable[str]) -> dict[str, Any]:
    return {
        "epoch": row["epoch"],
        **{name: _number(row.get(name)) for name in _OF_EPOCHS},
        "curve": _drawn(row.get("curve_acc_seen"), row.get("curve_acc_absent"), _EPOCH_CELLS),
        "calibrators": {
            name: {key: _number(row.get(f"{name}/{key}")) for key in ("gamma", *_OF_EPOCHS[:3])}
            for name in calibrators
            if _number(row.get(f"{name}/gamma")) is not None
        },
    }


def _drawn(
    seen: Sequence[float | None] | None, absent: Sequence[float | None] | None, cells: int
) -> dict[str, list[float]] | None:
    """A curve without the points that would be drawn over another; None where a group has no samples.

    Args:
        seen, absent: S/Y and U/Y at ascending γ, fractions.
        cells: cells a side of the unit square; of consecutive points in one cell the first is kept.
    """
    x, y = (np.array(values or [], dtype=np.float64) for values in (seen, absent))
    if not len(x) or np.isnan(x).any() or np.isnan(y).any():
        return None
    cell = np.stack([x, y]).round(decimals=6) * cells // 1
    keep = np.append(True, (cell[:, 1:] != cell[:, :-1]).any(0))
    keep[-1] = True
    return {"seen": x[keep].round(4).tolist(), "absent": y[keep].round(4).tolist()}


def _array(values: npt.NDArray[Any]) -> dict[str, str]:
    """An array as text: its bytes, little endian, in base64; integers are as short as they can be."""
    if values.dtype.kind in "iu":
        values = values.astype(np.min_scalar_type(int(values.max(initial=0))))
    little = values.astype(values.dtype.newbyteorder("<"))
    return {"type": values.dtype.name, "base64": base64.b64encode(little.tobytes()).decode("ascii")}


def _json(content: Any) -> str:
    """JSON that may stand in a script element, whatever texts are in it."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _unbroken(text: str) -> str:
    """The text with percents kept on a line with their numbers."""
    return text.replace(" %", "&nbsp;%")


def _head(number: int, run: PageRun) -> str:
    """What stands above everything that moves: the run's name, what fine-tuning did, what is missing."""
    record = run.record
    damage = "".join(f"<p>{_unbroken(escape(line))}</p>" for line in damage_report(record))
    missing = "".join(f"<p>{escape(line)}</p>" for line in run.notes)
    name = escape(f"{run.folder}: {record.name}")
    return (
        f'<section class="head" data-run="{number}"><h2 class="of-many">{name}</h2>'
        f"{_wrapped('damage', damage)}{_wrapped('notes', missing)}</section>"
    )


def _wrapped(name: str, content: str) -> str:
    return f'<div class="{name}">{content}</div>' if content else ""


def _details(number: int, run: PageRun) -> str:
    """The tables of a run that do not move."""
    record = run.record
    lanes = record.lanes() or ["seen_only"]
    tables = "".join(_stage_table(record, lane) for lane in lanes)
    return (
        f'<article data-run="{number}"><section class="card"><h2>Results of {escape(record.name)}</h2>'
        f'{tables}<p class="small">Percent; γ in logits. A star marks the calibrator that is deployed. Small '
        "numbers are bootstrap intervals, where the run made them.</p></section>"
        f'<section class="card"><h2>How it was made</h2>{_facts(_record_facts(run))}'
        f'<details><summary>Configuration</summary><pre tabindex="0">{escape(_listing(run.config))}</pre>'
        f"</details></section></article>"
    )


def _stage_table(record: RunRecord, lane: Lane) -> str:
    """Models, the calibrators of one lane, and the bound: lanes are not compared."""
    models = {} if record.stages.source is None else {"source": record.stages.source}
    models[record.evaluated] = record.stages.fine_tuned
    stages = {**models, **record.lane(lane), **record.lane("oracle")}
    columns = [c for c in COLUMNS if any(stage.metrics.get(c) is not None for stage in stages.values())]
    rows = []
    for name, stage in stages.items():
        star = " *" if name == record.deployed else ""
        label = f"{stage_title(name, stage)}{star}"
        cells = [_metric_cell(stage, column) for column in columns]
        gamma = decimal(stage.gamma) if stage.lane else "0"
        used = ", ".join(stage.uses) if stage.lane != "oracle" else f"{', '.join(stage.uses)}: a bound"
        kind = ' class="oracle"' if stage.lane == "oracle" else ""
        rows.append(
            f'<tr{kind}><th scope="row">{escape(label)}</th>{"".join(cells)}'
            f'<td class="number">{gamma}{_interval(stage, "gamma", 1)}</td><td>{escape(used)}</td></tr>'
        )
    headings = [*(METRICS[column] for column in columns), "γ"]
    return _table(
        lane_title(lane), [("", ""), *((text, "number") for text in headings), ("data used", "")], rows
    )


def _metric_cell(stage: StageRecord, name: str) -> str:
    small = _interval(stage, name, 100) if name in INTERVAL_COLUMNS else ""
    return f'<td class="number">{percent(stage.metrics.get(name))}{small}</td>'


def _interval(stage: StageRecord, name: str, scale: float) -> str:
    low, high = stage.intervals.get(name, (None, None))
    if low is None or high is None:
        return ""
    digits = 1 if scale == 100 else 2
    return f"<small>{decimal(scale * low, digits)} to {decimal(scale * high, digits)}</small>"


def _run_list(runs: Sequence[PageRun]) -> str:
    """The table of all runs: the keys in which they differ, and their main numbers."""
    keys = list(dict.fromkeys(key for run in runs for key in run.differs))
    numbers = ("Y/Y at γ = 0", "S/Y", "U/Y", "AUSUC", "Y/Y deployed", "γ deployed", "oracle Y/Y")
    headings = [("run", ""), *((text, "number") for text in numbers), *((key, "") for key in keys)]
    rows = [_listed(number, run, keys) for number, run in enumerate(runs)]
    return (
        f'<section class="card" id="runs"><h2>Runs</h2>{_table("All runs", headings, rows, sortable=True)}'
        '<p class="small">Percent; γ in logits. A heading sorts by its column, a name opens its run below. '
        "The deployed calibrator is the one whose γ is in the model to deploy. The oracle looks at test "
        "labels: it is a bound, no method.</p></section>"
    )


def _listed(number: int, run: PageRun, keys: Iterable[str]) -> str:
    """A run's row in the list of runs; its numbers keep all digits, to be sorted by."""
    record = run.record
    deployed = record.stages.calibrated.get(record.deployed or "")
    oracle = record.stages.calibrated.get("oracle")
    numbers = [record.stages.fine_tuned.metrics.get(name) for name in _LISTED]
    numbers += [None if stage is None else stage.metrics.get("acc_all") for stage in (deployed, oracle)]
    *plain, best = (_data(value, percent(value)) for value in numbers)
    gamma = "–" if deployed is None else _data(deployed.gamma, decimal(deployed.gamma))
    cells = [f'<td class="number">{content}</td>' for content in (*plain, gamma)]
    cells.append(f'<td class="number oracle">{best}</td>')
    cells += [f"<td>{escape(run.differs.get(key, '–'))}</td>" for key in keys]
    return (
        f'<tr data-row="{number}"><th scope="row"><button type="button" class="pick" data-pick="{number}">'
        f"{escape(run.folder)}</button></th>{''.join(cells)}</tr>"
    )


def _table(
    caption: str, headings: Sequence[tuple[str, str]], rows: Sequence[str], sortable: bool = False
) -> str:
    """A table that scrolls inside itself where it is wider than the page.

    Args:
        caption: its caption.
        headings: texts and classes of the columns.
        rows: its rows, HTML.
        sortable: whether `page.js` lets readers sort it.
    """
    name = escape(caption, quote=True)
    cells = (
        f'<th scope="col"{f" class={kind}" if kind else ""}>{_heading(text, sortable)}</th>'
        for text, kind in headings
    )
    kind = "scroll tall" if sortable else "scroll"
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{name}"><table><caption>{name}'
        f"</caption><thead><tr>{''.join(cells)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _heading(text: str, sortable: bool) -> str:
    words = escape(text).replace(".", ".<wbr>")
    return f'<button type="button" class="sort">{words}</button>' if sortable else words


def _record_facts(run: PageRun) -> Iterable[tuple[str, str]]:
    record = run.record
    yield "test images", ", ".join(f"{n:,} {group}" for group, n in record.num_samples.items() if n)
    for group, columns in (("seen", record.partition.seen), ("absent", record.partition.absent)):
        yield f"{group} classes", f"{len(columns)}: {_some([run.class_names[c] for c in columns])}"
    if record.partition.others:
        yield "other columns", f"{len(record.partition.others)}, neither seen nor absent"
    if record.method is not None:
        yield "method", record.method
    if record.trainable is not None:
        yield "trained values", f"{record.trainable:,}"
    if record.checkpoint is not None:
        yield "SHA-256 of the checkpoint", record.checkpoint
    if record.own_domain is not None:
        yield "own domain", str(record.own_domain)
    if record.near_copies is not None:
        yield "near copies", f"{100 * record.near_copies:.0f} % of the held-out seen images"
    yield "the oracle's criterion", METRICS[record.criterion]
    if record.device is not None:
        yield "computed on", record.device
    yield "versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())
    if record.timing:
        yield "seconds", ", ".join(f"{name.replace('_', ' ')} {s:.1f}" for name, s in record.timing.items())


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    entries = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts)
    return f"<dl>{entries}</dl>"


def _some(names: Sequence[str], most: int = 60) -> str:
    """The first names of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _listing(content: Any, depth: int = 0) -> str:
    """A configuration as indented lines of ``key: value``."""
    lines = []
    for key, value in content.items():
        inner = isinstance(value, dict) and value
        text = "" if inner else f" {json.dumps(value, ensure_ascii=False, default=str)}"
        lines.append(f"{'  ' * depth}{key}:{text}")
        if inner:
            lines.append(_listing(value, depth + 1))
    return "\n".join(lines)


def _data(value: float | None, text: str) -> str:
    return text if value is None else f'<data value="{value!r}">{text}</data>'
