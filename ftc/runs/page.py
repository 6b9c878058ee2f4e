"""The data of a page of finished runs, from their records, saved predictions and images."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ftc.errors import InputError
from ftc.files import written_whole
from ftc.functional import accuracies, curve_of_outcomes, predicted_columns, reduce_logits
from ftc.partition import ClassPartition, PartitionManifest
from ftc.reporting.names import readable, stage_title
from ftc.reporting.page import PageImages, PageModel, PageRun, page_html
from ftc.runs.finished import FinishedRun
from ftc.runs.folder import PARTITION_FILE
from ftc.runs.groups import told_apart
from ftc.runs.origin import origin_of
from ftc.runs.outputs import images_of

# Of the small images of a page: how many there are, all their bytes, and the longer side of each in pixels.
MOST_THUMBNAILS, THUMBNAIL_BYTES, THUMBNAIL_SIDE = 300, 500_000, 56
# Images of all runs of a page; runs after the first that would bring more have drawn curves instead.
MOST_IMAGES = 50_000


def write_page(
    path: Path,
    runs: Sequence[FinishedRun],
    provenance: Mapping[str, str],
    thumbnails: bool = False,
    allow_targets: Sequence[str] = (),
) -> Path:
    """Write a page of finished runs: one file that needs no other and nothing from the network.

    Args:
        path: the file to write.
        runs: the runs, at least one.
        provenance: how the page was made, such as the command and the commit: labels and texts.
        thumbnails: whether to put small images of samples that change their prediction into the page. It may
            then not be sent to whoever may not see the images.
        allow_targets: packages whose code a run's reader may be, see `ftc.config.targets.check_targets`.

    Returns:
        The path.

    Raises:
        InputError: a file of a run is damaged.
    """
    text = page_html(_page_runs(runs, thumbnails, list(allow_targets)), provenance)
    with written_whole(path) as temporary:
        # Names may hold bytes that are no text.
        temporary.write_bytes(text.encode("utf-8", "replace"))
    return path


def write_run_page(folder: Path) -> None:
    """Write ``report.html`` of a run that has just finished into its folder."""
    run = FinishedRun.read(folder)
    write_page(folder / "report.html", [run], origin_of("train", [run]))


def _page_runs(runs: Sequence[FinishedRun], thumbnails: bool, allowed: list[str]) -> Iterator[PageRun]:
    number = 0
    for run, differs in zip(runs, told_apart(runs), strict=True):
        number += sum(run.record.num_samples.values())
        has_room = run is runs[0] or number <= MOST_IMAGES
        images, epochs = (page_images(run), run.epochs()) if has_room else (None, [])
        notes, shown = list(_missing(run, has_room, epochs)), {}
        if thumbnails and images is not None:
            try:
                shown = _thumbnails(run, images, len(runs), allowed)
            except InputError as error:
                notes.append(f"There are no small images, because the run's own cannot be read: {error}")
        yield PageRun(
            record=run.record,
            folder=run.folder.resolve().name,
            class_names=_class_names(run),
            config=run.config,
            images=images,
            epochs=epochs,
            differs=differs,
            notes=notes,
            thumbnails=shown,
        )


def page_images(run: FinishedRun) -> PageImages | None:
    """A run's test images under all models that it kept test logits of; None where it kept none."""
    if not run.keeps_outputs:
        return None
    saved, record, main = run.outputs(), run.record, run.record.evaluated
    titles = {"source": "source", main: readable(main)}
    titles |= {name: stage_title(name, stage) for name, stage in record.stages.calibrated.items()}
    target, average = saved.of(main, "test", "target"), run.calibration.average
    models = [
        _page_model(name, title, saved.of(name, "test", "logits"), target, run.partition, average)
        for name, title in titles.items()
        if saved.has(name, "test", "logits")
    ]
    ids = saved.of(main, "test", "id")
    return PageImages(target.numpy(), ids.numpy(), average, models)


def _page_model(
    name: str, title: str, logits: Tensor, target: Tensor, partition: ClassPartition, average: Any
) -> PageModel:
    outcomes = reduce_logits(logits, target, partition)
    fixed, absent = predicted_columns(logits, partition, (-math.inf, math.inf))
    of_zero = accuracies(outcomes, partition, 0.0, average)
    unmoved = {key: of_zero[key] for key in ("acc_seen_within", "acc_absent_within")}
    unmoved["ausuc"] = curve_of_outcomes(outcomes, partition, average).ausuc
    return PageModel(name, title, outcomes.margin.numpy(), fixed.numpy(), absent.numpy(), unmoved)


def _class_names(run: FinishedRun) -> list[str]:
    """One name for each head column; those that nothing names are called by their column."""
    path, found = run.folder / PARTITION_FILE, run.record.per_class
    if path.is_file():
        return list(PartitionManifest.read(path).class_names)
    known = {} if found is None else dict(zip(found.columns, found.names, strict=True))
    return [known.get(column, f"class {column}") for column in range(run.partition.num_classes)]


def _missing(run: FinishedRun, has_room: bool, epochs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Sentences on what the page cannot show of a run."""
    sizes = run.record.num_samples
    if not has_room:
        yield (
            "To keep the page small, it has neither single images nor epochs of this run: the curve is drawn "
            "and γ cannot be moved. A page of this run alone has them."
        )
    elif not run.keeps_outputs:
        yield (
            "This run kept no predictions, so that γ cannot be moved here and no image is listed; runs of "
            "ftc.train and ftc.evaluate keep them."
        )
    for group, symbol in (("seen", "S/Y"), ("absent", "U/Y")):
        if not sizes.get(group):
            yield (
                f"No test image is of a class that is {group}: there is no {symbol}, no seen–absent curve "
                "and no oracle."
            )
    if has_room and not epochs:
        yield "Nothing was trained epoch by epoch in this run, so that there are no charts over epochs."


def _thumbnails(run: FinishedRun, images: PageImages, runs: int, allowed: list[str]) -> dict[int, str]:
    """Small images of samples that flip between γ = 0 and a calibrator's γ, by row of the run's reader.

    Those nearest to a γ come first, until this run's part of the page's number or bytes is used up.

    Raises:
        InputError: the images are no longer there, or their reader's code is not allowed.
    """
    reader = images_of(run, "test", allowed)
    found: dict[int, str] = {}
    room = THUMBNAIL_BYTES // runs
    for row in _nearest_flips(run, images)[: MOST_THUMBNAILS // runs].tolist():
        uri = _data_uri(reader.decode(row))
        room -= len(uri)
        if room < 0:
            break
        found[row] = uri
    return found


def _nearest_flips(run: FinishedRun, images: PageImages) -> Tensor:
    """Rows of the samples that some calibrator's γ flips, by the distance of their margins from it."""
    stages, main = run.record.stages.calibrated, run.record.evaluated
    models = {model.name: torch.from_numpy(model.margin) for model in images.models}
    nearest = torch.full((len(images.target),), torch.inf, dtype=torch.float64)
    for name, stage in stages.items():
        margin = models.get(name, models[main])
        flips = (stage.gamma > margin) != (margin < 0)
        distance = torch.where(flips, (margin - stage.gamma).abs(), torch.inf)
        nearest = torch.minimum(nearest, distance)
    order = nearest.argsort(stable=True)
    return torch.from_numpy(images.ids)[order[nearest[order].isfinite()]]


def _data_uri(image: Image.Image) -> str:
    """A small JPEG of an image."""
    small = image.convert("L" if image.mode == "L" else "RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=75, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
