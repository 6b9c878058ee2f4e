"""A cache on disk of decoded images that all runs share."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from sqlite3 import Connection

import numpy as np
from filelock import FileLock
from PIL import Image
from torch import Tensor

from ftc.data.checks import stamp_of, verdicts
from ftc.data.decode import UnreadableImage
from ftc.data.readers import EncodedReader, Reader, sample_name
from ftc.data.store import chunks, digest, in_parallel, opened
from ftc.data.transforms import Form
from ftc.errors import InputError
from ftc.files import written_whole

# Shard, offset in it (bytes), height, width, channels, CRC-32 of the pixels.
Place = tuple[str, int, int, int, int, int]


class StoredImages:
    """A reader's images in one form, read from disk one at a time.

    Nothing is held in memory, no file stays open, and any number of processes may read. The operating system
    caches what it has room for; memory-mapped files would give the same bytes, but with many page faults.

    Args:
        folder: folder of the shards.
        places: the image's place, by row of the reader.
        size: number of rows of the reader.
    """

    def __init__(self, folder: Path, places: Mapping[int, Place], size: int) -> None:
        shards = sorted({place[0] for place in places.values()})
        numbers = {shard: number for number, shard in enumerate(shards)}
        self._shards = [str(folder / shard) for shard in shards]
        self._places = np.full((size, 6), -1, dtype=np.int64)
        for row, (shard, *where) in places.items():
            self._places[row] = (numbers[shard], *where)

    def __getitem__(self, row: int) -> np.ndarray:
        """The pixels of a sample (H, W, channels), uint8.

        Raises:
            InputError: the file is damaged. It is removed, so that the cache makes it again.
        """
        shard, offset, *shape, checksum = self._places[row].tolist()
        path = self._shards[shard]
        try:
            pixels = np.fromfile(path, np.uint8, math.prod(shape), offset=offset)
        except FileNotFoundError as error:
            raise InputError(f"{path}: is gone; the same command makes it again") from error
        if zlib.crc32(pixels.data) != checksum:
            Path(path).unlink(missing_ok=True)
            raise InputError(f"{path}: was damaged, and is removed; the same command makes it again")
        return pixels.reshape(shape)


class ImageCache:
    """Decoded images in a folder, found by content and form, so that an image is decoded once for all runs.

    Several runs may use it at the same time.

    Args:
        folder: the cache's folder, which may be deleted whenever no run uses it.
        images_per_file: an interruption loses only the file that is being written.
    """

    def __init__(self, folder: Path, images_per_file: int = 256) -> None:
        self.folder = folder
        self.images_per_file = images_per_file

    def store(
        self, reader: Reader, form: Form, rows: Tensor | None = None, num_workers: int = 0
    ) -> StoredImages:
        """A reader's images in a form; images that the cache lacks are decoded and added.

        Args:
            reader: the images; an `EncodedReader`'s are identified by their encoded content, others by their
                pixels.
            form: the form to keep the images in.
            rows: int64 (N,), the samples to store; by default all.
            num_workers: processes to decode in; 0 for this one.

        Raises:
            UnreadableImage: an image that cannot be decoded.
            InputError: a folder that cannot be written to, or whose index is damaged.
        """
        size = len(reader.targets)
        wanted = range(size) if rows is None else rows.tolist()
        contents = self._contents(reader, wanted, num_workers)
        folder = self.folder / "pixels" / digest(form.key.encode())
        # Any of several rows with the same content will do.
        row_of = {content: row for row, content in contents.items()}
        with opened(self.folder) as index:
            places = _places(index, folder, row_of)
            if len(places) < len(row_of):
                # One process builds; the others wait, and then find all images.
                with FileLock(self.folder / "build.lock", mode=0o666):
                    places = _places(index, folder, row_of)
                    missing = [(content, row) for content, row in row_of.items() if content not in places]
                    write = partial(_write_shard, reader, form, folder)
                    for shard in in_parallel(
                        "Caching images", write, chunks(missing, self.images_per_file), num_workers
                    ):
                        if isinstance(shard, UnreadableImage):
                            raise shard
                        _remember(index, folder, shard)
                        places |= shard
        return StoredImages(folder, {row: places[content] for row, content in contents.items()}, size)

    def _contents(self, reader: Reader, rows: Sequence[int], num_workers: int) -> dict[int, str]:
        """The key of each row's content, by row."""
        if not isinstance(reader, EncodedReader):
            tasks = chunks(rows, self.images_per_file)
            found = in_parallel("Reading images", partial(_pixel_digests, reader), tasks, num_workers)
            return dict(zip(rows, (content for part in found for content in part), strict=True))
        stamps = {row: stamp_of(reader, row) for row in rows}
        found_by_stamp = verdicts(
            {stamp: (reader, row) for row, stamp in stamps.items()}, self.folder, num_workers
        )
        contents = {}
        for row, stamp in stamps.items():
            verdict = found_by_stamp[stamp]
            if verdict.fault is not None:
                raise UnreadableImage.because(sample_name(reader, row), verdict.fault)
            contents[row] = f"{verdict.digest} {reader.mode}"
        return contents


def _places(index: Connection, folder: Path, contents: Iterable[str]) -> dict[str, Place]:
    """The places of the images that the cache holds, by content."""
    query = (
        "SELECT shard, offset, height, width, channels, checksum FROM stored_image "
        "WHERE form = ? AND content = ?"
    )
    places = {}
    there: dict[str, bool] = {}
    for content in contents:
        place = index.execute(query, (folder.name, content)).fetchone()
        if place is not None and there.setdefault(place[0], (folder / place[0]).is_file()):
            places[content] = place
    return places


def _remember(index: Connection, folder: Path, places: Mapping[str, Place]) -> None:
    rows = [(folder.name, content, *place) for content, place in places.items()]
    with index:
        index.executemany("INSERT OR REPLACE INTO stored_image VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def _write_shard(
    reader: Reader, form: Form, folder: Path, samples: Sequence[tuple[str, int]]
) -> dict[str, Place] | UnreadableImage:
    """Decode samples (content, row), one after the other, into a file of their pixels."""
    shard = digest("".join(content for content, _ in samples).encode()) + ".u8"
    places = {}
    row = offset = 0
    try:
        with written_whole(folder / shard) as temporary, temporary.open("wb") as file:
            for content, row in samples:
                pixels = np.atleast_3d(np.asarray(form.resize(reader.decode(row))))
                content_bytes = pixels.tobytes()
                file.write(content_bytes)
                height, width, channels = pixels.shape
                places[content] = (shard, offset, height, width, channels, zlib.crc32(content_bytes))
                offset += pixels.size
    except UnreadableImage as error:
        # Returned, since raising it in a worker would bury its one line under a traceback.
        return UnreadableImage.because(sample_name(reader, row), error.reason)
    return places


def _pixel_digests(reader: Reader, rows: Sequence[int]) -> list[str]:
    return [_pixel_digest(reader.decode(row)) for row in rows]


def _pixel_digest(image: Image.Image) -> str:
    return f"{digest(image.tobytes())} {image.mode} {image.width} {image.height}"
