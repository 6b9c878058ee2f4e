"""The index of a cache folder, and work on it by several processes."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from rich.console import Console
from rich.progress import Progress
from torch.utils.data import DataLoader, Dataset

from ftc.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

# A validation has up to four loaders, each of which keeps its workers.
_MOST_WORKERS = 8

_TABLES = """
CREATE TABLE IF NOT EXISTS verdict (stamp TEXT PRIMARY KEY, digest TEXT, fault TEXT);
CREATE TABLE IF NOT EXISTS stored_image (
  form TEXT, content TEXT, shard TEXT, offset INTEGER, height INTEGER, width INTEGER, channels INTEGER,
  checksum INTEGER, PRIMARY KEY (form, content)
);
"""


def digest(content: bytes) -> str:
    """The digest of a content: 128 bits of BLAKE2b, hexadecimal."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def workers(asked: int | Literal["auto"], processes: int = 1) -> int:
    """The number of worker processes of a loader.

    Args:
        asked: the number; ``auto`` for as many as there are cores, 8 at most.
        processes: how many processes of this machine share its cores.
    """
    if asked != "auto":
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_WORKERS, cores // processes))


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the index of a cache folder: verdicts, and the places of decoded images.

    Raises:
        InputError: a folder that cannot be written to, or a file that is no index.
    """
    path = folder / "index.sqlite"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index = sqlite3.connect(path, timeout=60)
        try:
            index.executescript(_TABLES)
            yield index
        finally:
            index.close()
    except (sqlite3.Error, FileExistsError, PermissionError) as error:
        raise InputError(f"{path}: {error}; remove it, or name another folder as cache_dir") from error


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Divide items into lists of ``size``; the last one may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def in_parallel(
    title: str, function: Callable[[T], R], tasks: Sequence[T], num_workers: int = 0
) -> Iterator[R]:
    """The results of a function for tasks, in order, from ``num_workers`` processes (0 for this one).

    A progress bar with the title is shown in terminals.
    """
    if not tasks:
        return
    loader = DataLoader(
        _Tasks(function, tasks),
        batch_size=None,
        collate_fn=as_is,
        num_workers=min(num_workers, len(tasks)),
    )
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.file.isatty()) as progress:
        yield from progress.track(loader, total=len(tasks), description=title)


class _Tasks(Dataset[Any]):
    def __init__(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> None:
        self.function = function
        self.tasks = tasks

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Any:
        return self.function(self.tasks[index])


def as_is(batch: T) -> T:
    """The batch unchanged, for loaders whose dataset makes whole batches."""
    return batch
