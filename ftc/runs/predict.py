"""``python -m ftc.predict``: the answers of a deployed model to images, row by row (no torch by itself)."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import Progress

from ftc.config.deployment import PredictConfig
from ftc.errors import InputError, require
from ftc.export.images import ImageList
from ftc.export.predictor import Predictor
from ftc.export.rows import Chunk, Rows, columns
from ftc.files import printable

# Failures that the last line names.
_MOST_NAMED = 3

Row = Mapping[str, Any]


def predict(config: PredictConfig) -> dict[str, Any]:
    """Predict, and write a row for every image.

    Returns:
        An empty dict: there are no scalars for a sweep's table.

    Raises:
        InputError: no model or image there; or images that cannot be read, once all others have rows.
    """
    images = ImageList(config.images if isinstance(config.images, list) else [config.images])
    predictor = _predictor(config)
    failures = _Failures()
    if config.to is None:
        writer = csv.DictWriter(sys.stdout, columns(config.top_k), lineterminator="\n")
        writer.writeheader()
        for found in predictor.stream(images, config.top_k):
            row = found.row(config.top_k)
            failures.note(row)
            writer.writerow({**row, "file": printable(row["file"])})
        failures.report("above")
        return {}
    identity = {"model": predictor.digest, "images": images.digest, "top_k": config.top_k}
    with Rows(config.to, config.top_k, identity, config.overwrite) as rows:
        pending = rows.pending(images)
        chunks = _by_ray(config, pending) if config.engine == "ray" else _here(config, predictor, pending)
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.file.isatty()) as progress:
            task = progress.add_task("Predicting", total=images.count, completed=rows.kept)
            if rows.kept:
                print(f"Goes on after {rows.kept:,} images that are done", file=sys.stderr)
            for chunk in chunks:
                rows.keep(chunk)
                progress.advance(task, len(chunk.rows))
        rows.finish(failures.note)
    print(f"Predictions: {config.to} ({images.count:,} images)")
    failures.report(config.to)
    return {}


def _predictor(config: PredictConfig) -> Predictor:
    asked = config.num_workers
    threads = (os.cpu_count() or 1) if asked == "auto" else max(1, asked)
    return Predictor(config.model, config.device, config.batch_size, threads)


def _here(
    config: PredictConfig, predictor: Predictor, pending: Iterator[tuple[int, list[str]]]
) -> Iterator[Chunk]:
    """Chunks predicted in this process, one stream over all of them."""
    begun: list[tuple[int, int]] = []

    def files() -> Iterator[str]:
        for number, names in pending:
            begun.append((number, len(names)))
            yield from names

    found: list[Row] = []
    for prediction in predictor.stream(files(), config.top_k):
        found.append(prediction.row(config.top_k))
        if len(found) == begun[0][1]:
            yield Chunk(begun.pop(0)[0], found)
            found = []


class _ChunkPredictor:
    """What a Ray worker holds: a model, and the function from the names of a chunk to its rows."""

    def __init__(self, config: PredictConfig) -> None:
        self.predictor, self.top_k = _predictor(config), config.top_k

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        rows = [found.row(self.top_k) for found in self.predictor.stream(item["files"], self.top_k)]
        return {"number": item["number"], "rows": rows}


def _by_ray(config: PredictConfig, pending: Iterator[tuple[int, list[str]]]) -> Iterator[Chunk]:
    """Chunks predicted by Ray Data, in the order in which they are done."""
    require("ray", "ray", "engine=ray")
    import ray.data

    ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    items = [{"number": number, "files": files} for number, files in pending]
    if not items:
        return
    # Each worker has threads of its own for decoding.
    workers = max(1, min(len(items), int(ray.cluster_resources().get("CPU", 1)) // 2))
    done = ray.data.from_items(items, override_num_blocks=len(items)).map(
        _ChunkPredictor,
        fn_constructor_kwargs={"config": config},
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    for item in done.iter_rows():
        yield Chunk(int(item["number"]), list(item["rows"]))


class _Failures:
    """Images that cannot be read."""

    def __init__(self) -> None:
        self.count = 0
        self.named: list[str] = []

    def note(self, row: Row) -> None:
        """Look at a row."""
        if row["error"] is not None:
            self.count += 1
            if len(self.named) < _MOST_NAMED:
                self.named.append(f"{printable(row['file'])}: {row['error']}")

    def report(self, where: object) -> None:
        """End the command with a line about them, where there are any.

        Raises:
            InputError: there are.
        """
        if self.count:
            more = "; …" if self.count > len(self.named) else ""
            raise InputError(
                f"images: {self.count} cannot be read ({'; '.join(self.named)}{more}); the rows of all "
                f"others are in {where}"
            )
