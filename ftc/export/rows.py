"""The rows of predictions, kept chunk by chunk until all are there, then written as one file (no torch)."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from attrs import frozen
from filelock import FileLock, Timeout

from ftc.errors import InputError
from ftc.export.predictor import Prediction
from ftc.files import lock_beside, printable, remove_parts, written_whole

# Images of a chunk: what an interruption loses at most, and what is held in memory.
CHUNK = 1024

_IDENTITY = "identity.json"


def columns(top_k: int) -> list[str]:
    """The columns of the rows."""
    return list(Prediction(None).row(top_k))


@frozen(eq=False)
class Chunk:
    """The rows of some images that follow each other.

    Attributes:
        number: its place among all chunks.
        rows: a row for every image.
    """

    number: int
    rows: list[Mapping[str, Any]]


class Rows:
    """A file of predictions that comes into being; an interrupted one goes on.

    Chunks lie in a hidden folder beside the file until all are there. Chunks of another model, of other
    images or of other columns are removed.

    Args:
        to: the file, whose end says of what kind it is.
        top_k: how many labels a row has.
        identity: what the rows depend on, in JSON types.
        overwrite: whether a finished file may be replaced.

    Attributes:
        kept: how many images have rows from before.

    Raises:
        InputError: another command is at work on the file, or has finished it meanwhile.
    """

    def __init__(self, to: str, top_k: int, identity: Mapping[str, Any], overwrite: bool) -> None:
        self.path = Path(to)
        self.columns = columns(top_k)
        self.identity = dict(identity)
        self.overwrite = overwrite
        self.folder = self.path.with_name(f".{self.path.name}-parts")
        self.kept = 0
        self._held = ExitStack()

    def __enter__(self) -> Rows:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_beside(self.path), timeout=0, mode=0o666)
        try:
            self._held.enter_context(lock)
        except Timeout as error:
            raise InputError(f"to={self.path}: another command is at work on it; wait for it") from error
        if self.path.exists() and not self.overwrite:
            self._held.close()
            raise InputError(f"to={self.path}: exists; choose another file, or set overwrite=true")
        if self._known_identity() != self.identity:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            with written_whole(self.folder / _IDENTITY) as temporary:
                temporary.write_text(json.dumps(self.identity), encoding="utf-8")
        remove_parts(self.folder)
        self.kept = sum(len(rows) for rows in map(self._rows_of, self._chunks()) if rows is not None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def _known_identity(self) -> Any:
        with suppress(OSError, ValueError):
            return json.loads((self.folder / _IDENTITY).read_text(encoding="utf-8"))
        return None

    def _chunks(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.jsonl"))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:09d}.jsonl"

    def _rows_of(self, path: Path) -> list[dict[str, Any]] | None:
        """The rows of a kept chunk; None, and no chunk any more, where it is damaged."""
        try:
            *lines, last = path.read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines]
            if json.loads(last) == {"rows": len(rows)} and all(list(row) == self.columns for row in rows):
                return rows
        except (OSError, ValueError):
            pass
        path.unlink(missing_ok=True)
        return None

    def pending(self, images: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """The chunks of images that have no rows yet, with their numbers."""
        names = iter(images)
        number = 0
        while chunk := list(islice(names, CHUNK)):
            if not self._path(number).is_file():
                yield number, chunk
            number += 1

    def keep(self, chunk: Chunk) -> None:
        """Keep the rows of a chunk."""
        lines = [json.dumps(_plain(row)) for row in chunk.rows]
        with written_whole(self._path(chunk.number)) as temporary:
            temporary.write_text("\n".join([*lines, json.dumps({"rows": len(lines)})]) + "\n")

    def finish(self, look: Callable[[Mapping[str, Any]], object]) -> None:
        """Write the file; the chunks are removed once it is there.

        Args:
            look: called with every row.
        """
        kinds = {".csv": self._csv, ".jsonl": self._jsonl, ".parquet": self._parquet}
        with written_whole(self.path) as temporary:
            kinds[self.path.suffix.lower()](temporary, self._every(look))
        shutil.rmtree(self.folder, ignore_errors=True)

    def _every(self, look: Callable[[Mapping[str, Any]], object]) -> Iterator[list[dict[str, Any]]]:
        for path in self._chunks():
            rows = self._rows_of(path)
            if rows is None:
                raise InputError(f"{path}: was damaged meanwhile; the same command makes it again")
            for row in rows:
                look(row)
            yield rows

    def _csv(self, path: Path, chunks: Iterator[list[dict[str, Any]]]) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            for rows in chunks:
                writer.writerows(rows)

    def _jsonl(self, path: Path, chunks: Iterator[list[dict[str, Any]]]) -> None:
        with path.open("w", encoding="utf-8") as file:
            for rows in chunks:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def _parquet(self, path: Path, chunks: Iterator[list[dict[str, Any]]]) -> None:
        numbers = ("probability", "margin", "flips_at")
        schema = pa.schema(
            [(name, pa.float64() if name.startswith(numbers) else pa.string()) for name in self.columns]
        )
        with pq.ParquetWriter(path, schema) as writer:
            for rows in chunks:
                writer.write_table(pa.Table.from_pylist(rows, schema))


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose file's name is valid text, which bytes of names need not be."""
    return {**row, "file": printable(row["file"])}
