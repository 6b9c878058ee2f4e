"""iWildCam of WILDS: the training cameras as source domain, one test camera as target domain."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Literal

from ftc.benchmarks.catalogue import WILDS_COLUMNS, WILDS_IMAGES, held_out_location, read_table, whole_number
from ftc.data.folders import FileReader
from ftc.data.readers import OnError
from ftc.errors import InputError

PARTS = ("source", "train", "test")

# The label that WILDS gives to species without images.
_LEFT_OUT = 99999


class IWildCam(FileReader):
    """Camera traps of WILDS v2.0: 182 species, of which one camera sees a few.

    The source domain is WILDS' split ``train``. The target domain is one camera of WILDS' split ``test``:
    its earlier images are for training, its later ones for test. The cut never divides a sequence, which is
    one burst of near-identical frames.

    Args:
        root: folder with ``metadata.csv``, ``categories.csv`` and the images in ``train/``.
        part: ``source``, or the target camera's ``train`` or ``test``.
        location: the target camera (``location_remapped``); by default the test camera with most images.
        earlier: share of the target camera's images, in order of time, that are for training, as near as its
            sequences allow.
        mode, on_error: see `FileReader`.

    Attributes:
        location: the target camera; None for ``source``.
        groups: the sequence of each image.

    Raises:
        InputError: no such part or camera, a camera of a single sequence, tables that cannot be read, or
            images that are not there.
    """

    def __init__(
        self,
        root: Path | str,
        part: Literal["source", "train", "test"],
        location: int | None = None,
        earlier: float = 0.5,
        mode: str = "RGB",
        on_error: OnError = "error",
    ) -> None:
        root = Path(root)
        if part not in PARTS:
            raise InputError(f"part={part}: choose from {', '.join(PARTS)}")
        if not 0 < earlier < 1:
            raise InputError(f"earlier={earlier}: give a share between 0 and 1")
        table = root / "metadata.csv"
        rows = read_table(table, WILDS_COLUMNS)
        names = _class_names(root / "categories.csv")
        self.location: int | None = None
        if part == "source":
            rows = sorted((row for row in rows if row["split"] == "train"), key=lambda row: row["filename"])
        else:
            camera = held_out_location(root, rows, location)
            self.location = int(camera)
            rows = [row for row in rows if row["split"] == "test" and row["location_remapped"] == camera]
            past, future = _cut(table, rows, earlier)
            rows = past if part == "train" else future
        targets = [_label(table, row, len(names)) for row in rows]
        files = [f"{WILDS_IMAGES}/{row['filename']}" for row in rows]
        groups = [row["sequence_remapped"] for row in rows]
        super().__init__(root, files, targets, names, mode, on_error, groups)


def _class_names(path: Path) -> list[str]:
    """The species in the order of WILDS' labels."""
    rows = read_table(path, ("y", "name"))
    labels = {label: row["name"] for row in rows if (label := whole_number(row["y"])) is not None}
    labels.pop(_LEFT_OUT, None)
    if sorted(labels) != list(range(len(labels))):
        raise InputError(f"{path}: its labels leave gaps; give the file as WILDS publishes it")
    return [labels[label] for label in range(len(labels))]


def _label(path: Path, row: Mapping[str, str], count: int) -> int:
    label = whole_number(row["y"])
    if label is None or label >= count:
        raise InputError(f"{path}: {row['filename']} has label {row['y']}, but there are {count} classes")
    return label


def _cut(
    path: Path, rows: list[dict[str, str]], share: float
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """A camera's past and future, cut between two sequences."""
    times = {row["filename"]: _time(path, row) for row in rows}
    starts: dict[str, datetime] = {}
    for row in rows:
        sequence, time = row["sequence_remapped"], times[row["filename"]]
        starts[sequence] = min(starts.get(sequence, time), time)

    def order(row: Mapping[str, str]) -> tuple[datetime, str, datetime, str]:
        sequence, name = row["sequence_remapped"], row["filename"]
        return starts[sequence], sequence, times[name], name

    rows = sorted(rows, key=order)
    ends, end = [], 0
    for _, burst in groupby(rows, key=lambda row: row["sequence_remapped"]):
        end += len(list(burst))
        ends.append(end)
    if len(ends) < 2:
        raise InputError(
            f"location={rows[0]['location_remapped']}: its images are one sequence; choose another camera"
        )
    cut = min(ends[:-1], key=lambda end: abs(end - share * len(rows)))
    return rows[:cut], rows[cut:]


def _time(path: Path, row: Mapping[str, str]) -> datetime:
    try:
        return datetime.fromisoformat(row["datetime"])
    except ValueError as error:
        raise InputError(f"{path}: {row['filename']} has datetime {row['datetime']!r}, no time") from error
