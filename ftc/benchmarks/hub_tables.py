"""Images in the Hugging Face hub's parquet files, with the bytes that were uploaded."""

from __future__ import annotations

import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ftc.benchmarks.catalogue import Benchmark
from ftc.errors import InputError

IMAGE_FILES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

# The images to lay out: path below the benchmark's folder, and a file to link or the encoded bytes.
Images = Iterator[tuple[str, Path | bytes]]

_SHARD = re.compile(r"(?P<split>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?")


def spaceless(name: str) -> str:
    """A name with underscores in place of spaces."""
    # The original archive has «Real World», the official lists have «Real_World».
    return name.replace(" ", "_")


def find_tables(original: Path) -> list[Path]:
    """The parquet files of a folder.

    Raises:
        InputError: no parquet file, or a missing file of a numbered series.
    """
    files = sorted(original.rglob("*.parquet"))
    if not files:
        raise InputError(f"{original}: no parquet file in it; give the hub's files as they are")
    shards: dict[tuple[str, int], set[int]] = defaultdict(set)
    for file in files:
        if match := _SHARD.fullmatch(file.stem):
            shards[match["split"], int(match["count"])].add(int(match["index"]))
    for (split, count), indices in sorted(shards.items()):
        if len(indices) < count:
            raise InputError(
                f"{original}: {len(indices)} of the {count} files of {split}; get the others too"
            )
    return files


def open_table(file: Path) -> Any:
    """Open a parquet file.

    Raises:
        InputError: a broken file.
    """
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: a broken table ({error}); get it again") from error


def images_of_tables(benchmark: Benchmark, files: list[Path]) -> tuple[bool, Images]:
    """The images of the hub's tables.

    Returns:
        Whether the images keep their own file names, which they do where these tell them apart (else they are
        numbered); and the images.

    Raises:
        InputError: a missing column, an unknown domain, or a name that cannot be a folder's.
    """
    folders: list[str] = []
    names: list[str] = []
    for file in files:
        table = open_table(file)
        absent = sorted({*benchmark.columns, "image"} - set(table.schema_arrow.names))
        if absent:
            raise InputError(f"{file}: no column {', '.join(absent)}; give {benchmark.hub}'s files")
        rows = table.read(columns=[*benchmark.columns, "image.path"])
        words = [_words(table, rows, column, file) for column in benchmark.columns]
        folders += ["/".join(parts) for parts in zip(*words, strict=True)]
        paths = ((row or {}).get("path") or "" for row in rows.column("image").to_pylist())
        names += [PurePosixPath(path.replace("\\", "/")).name for path in paths]
    unknown = {f.split("/")[0] for f in folders} - set(benchmark.domains) if benchmark.domains else set()
    if unknown:
        raise InputError(f"{files[0].parent}: unknown domain {min(unknown)}; give {benchmark.hub}'s files")
    usable = all(name.lower().endswith(IMAGE_FILES) for name in names)
    own_names = usable and len(set(zip(folders, names, strict=True))) == len(names)

    def images() -> Images:
        numbers: Counter[str] = Counter()
        for folder, name, content in zip(folders, names, _contents(files), strict=True):
            numbers[folder] += 1
            if not own_names:
                name = f"{numbers[folder]:05d}{_extension(content, folder)}"
            yield f"{folder}/{name}", content

    return own_names, images()


def _words(table: Any, rows: Any, column: str, file: Path) -> list[str]:
    """The folder names in a column; the names of class labels are in the table's metadata."""
    values = rows.column(column).to_pylist()
    metadata = json.loads((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get(column, {}).get("names")
    words = [spaceless(str(names[value] if names else value)) for value in values]
    wrong = next((w for w in words if w in ("", ".", "..") or "/" in w or "\\" in w), None)
    if wrong is not None:
        raise InputError(f"{file}: {column} {wrong!r} names no folder; give the hub's files as they are")
    return words


def _contents(files: Iterable[Path]) -> Iterator[bytes]:
    for file in files:
        for batch in open_table(file).iter_batches(batch_size=64, columns=["image.bytes"]):
            for row in batch.column(0).to_pylist():
                if row is None or row["bytes"] is None:
                    raise InputError(f"{file}: an image without content; give the hub's files as they are")
                yield row["bytes"]


def _extension(content: bytes, folder: str) -> str:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return f".{(image.format or '').lower()}".replace("jpeg", "jpg")
    except Exception as error:  # on damaged data Pillow's plug-ins raise almost anything
        raise InputError(f"{folder}: an image of it is damaged; give the hub's files as they are") from error
