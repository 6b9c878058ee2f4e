"""Bad images are found before training: every file is decoded once, ever, and the verdict remembered."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from attrs import frozen
from platformdirs import user_cache_dir
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ftc.data.decode import fault
from ftc.data.readers import EncodedReader, OnError, Reader, some
from ftc.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

_CHUNK = 32
_TABLES = """
CREATE TABLE IF NOT EXISTS verdict (stamp TEXT PRIMARY KEY, digest TEXT, fault TEXT);
CREATE TABLE IF NOT EXISTS image (
  form TEXT, content TEXT, shard TEXT, offset INTEGER, height INTEGER, width INTEGER, channels INTEGER,
  PRIMARY KEY (form, content)
);
"""


@frozen
class Verdict:
    """What decoding an image told.

    Attributes:
        digest: of its encoded content.
        fault: why it cannot be decoded, None if it can.
    """

    digest: str
    fault: str | None


def check_images(
    readers: Mapping[str, Reader],
    on_error: OnError = "error",
    cache_dir: Path | None = None,
    num_workers: int = 0,
) -> dict[str, Tensor]:
    """Find images that cannot be decoded, and images trained on that are validated or tested on too.

    Verdicts are kept by stamp: later checks look at the files' sizes and times only. Readers of decoded
    images have nothing to check.

    Args:
        readers: by name, of which ``train`` must share no sample with ``val`` and ``test``.
        on_error: refuse bad images with an ``error``, or leave them out (``skip``): unreadable ones
            everywhere, shared ones of ``train``.
        cache_dir: folder of the verdicts; by default the user's cache folder.
        num_workers: processes to decode in; 0 for this one.

    Returns:
        The rows to keep of every reader, int64 (N,), in order.

    Raises:
        InputError: bad images, unless they are skipped; names the first few.
    """
    encoded = {name: reader for name, reader in readers.items() if isinstance(reader, EncodedReader)}
    stamps = {name: [r.stamp(i) for i in range(len(r.targets))] for name, r in encoded.items()}
    samples = {stamp: (encoded[name], i) for name in encoded for i, stamp in enumerate(stamps[name])}
    found = verdicts(samples, cache_folder(cache_dir), num_workers) if samples else {}
    elsewhere = {stamp: name for name in ("test", "val") for stamp in stamps.get(name, ())}
    shared = {stamp: elsewhere[stamp] for stamp in stamps.get("train", ()) if stamp in elsewhere}
    if on_error == "error":
        _refuse(samples, found, shared)
    kept = {name: torch.ones(len(reader.targets), dtype=torch.bool) for name, reader in readers.items()}
    for name, of_reader in stamps.items():
        left_out = shared if name == "train" else {}
        kept[name][:] = torch.tensor([found[s].fault is None and s not in left_out for s in of_reader])
    return {name: mask.nonzero()[:, 0] for name, mask in kept.items()}


def _refuse(
    samples: Mapping[str, tuple[EncodedReader, int]], found: Mapping[str, Verdict], shared: Mapping[str, str]
) -> None:
    names = {stamp: reader.name(i) for stamp, (reader, i) in samples.items() if stamp in shared}
    faults = {reader.name(i): found[s].fault or "" for s, (reader, i) in samples.items() if found[s].fault}
    if faults:
        raise InputError(
            f"{some(faults)} ({len(faults)} of {len(samples)} images cannot be read); "
            "mend them, or set data.on_error=skip"
        )
    if shared:
        reasons = {names[stamp]: f"in data.readers.train and data.readers.{s}" for stamp, s in shared.items()}
        raise InputError(
            f"{some(reasons)} ({len(shared)} images are trained and evaluated on); "
            "keep them apart, or set data.on_error=skip to not train on them"
        )


def verdicts(
    samples: Mapping[str, tuple[EncodedReader, int]], folder: Path, num_workers: int = 0
) -> dict[str, Verdict]:
    """What is known of samples by stamp; those that nothing is known of are decoded.

    Processes may do so at once, and be interrupted: what was found stays.
    """
    with opened(folder) as index:
        known = {}
        for stamp in samples:
            row = index.execute("SELECT digest, fault FROM verdict WHERE stamp = ?", (stamp,)).fetchone()
            if row is not None:
                known[stamp] = Verdict(*row)
        unknown = [(stamp, *sample) for stamp, sample in samples.items() if stamp not in known]
        for found in in_parallel("Checking images", _check, chunks(unknown, _CHUNK), num_workers):
            known.update(found)
            # Without a digest there was nothing to decode: a file out of reach may be back the next time.
            lasting = [(stamp, v.digest, v.fault) for stamp, v in found.items() if v.digest]
            with index:
                index.executemany("INSERT OR REPLACE INTO verdict VALUES (?, ?, ?)", lasting)
    return known


def _check(samples: Sequence[tuple[str, EncodedReader, int]]) -> dict[str, Verdict]:
    found = {}
    for stamp, reader, i in samples:
        try:
            content = reader.encoded(i)
        except OSError as error:
            found[stamp] = Verdict("", error.strerror or type(error).__name__)
        else:
            found[stamp] = Verdict(digest(content), fault(content))
    return found


def digest(content: bytes) -> str:
    """Stands for a content: 128 bits of BLAKE2b, hexadecimal."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def cache_folder(folder: Path | None) -> Path:
    """A folder to keep things in between runs: that one, or the user's cache folder."""
    return Path(user_cache_dir("ftc")) if folder is None else folder


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The index of a cache folder: verdicts, and where decoded images lie.

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
        raise InputError(f"{path}: {error}; remove it, or name another folder as data.cache_dir") from error


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Items in lists of that many, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def in_parallel(
    title: str, function: Callable[[T], R], tasks: Sequence[T], num_workers: int = 0
) -> Iterator[R]:
    """Results of a function, in order, from so many processes, under a progress bar."""
    if not tasks:
        return
    loader = DataLoader(
        _Tasks(function, tasks),
        batch_size=None,
        collate_fn=as_is,
        num_workers=min(num_workers, len(tasks)),
    )
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
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
    """What a loader's dataset gives, untouched."""
    return batch
