"""Folders that ftc and its libraries write to: sizes, free space, whether they can be written; nothing is."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# How long (s) to add up sizes below one folder; a cache may have millions of files on a slow disk.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Folder:
    """A folder, which need not be there.

    Attributes:
        name: what it is for.
        path: where it is.
        state: ``there``, ``not there yet``, ``cannot be read``, ``no folder`` or ``a link to nothing``.
        size: bytes of the files in it.
        whole: whether ``size`` has all of them; False where there is more than could be read in time.
        writable: whether it can be written to, or be made where it is not there.
        free: free bytes on its disk; None where nobody knows.
    """

    name: str
    path: str
    state: str
    size: int
    whole: bool
    writable: bool
    free: int | None


def folder(name: str, path: Path, patience: float = _PATIENCE) -> Folder:
    """What is known of a folder.

    Args:
        name: what it is for.
        path: where it is.
        patience: seconds that adding up sizes may take.
    """
    state = _state(path)
    size, whole = _size(path, time.monotonic() + patience) if state == "there" else (0, True)
    existing = next((place for place in (path, *path.absolute().parents) if _state(place) == "there"), path)
    writable = state in ("there", "not there yet") and os.access(existing, os.W_OK | os.X_OK)
    return Folder(name, str(path), state, size, whole, writable, _free(existing))


def parts(of: Folder) -> Iterator[Folder]:
    """The folders inside a folder, named by where they are in it; adding up all their sizes ends in time."""
    deadline = time.monotonic() + _PATIENCE
    for path in sorted(Path(of.path).iterdir()) if of.state == "there" else ():
        if _state(path) in ("there", "cannot be read"):
            yield folder(f"{of.name}/{path.name}", path, deadline - time.monotonic())


def _state(path: Path) -> str:
    try:
        if path.is_dir():
            return "there" if os.access(path, os.R_OK | os.X_OK) else "cannot be read"
        if path.exists():
            return "no folder"
        return "a link to nothing" if path.is_symlink() else "not there yet"
    except OSError:  # as where a folder above it cannot be entered
        return "cannot be read"


def _size(path: Path, deadline: float) -> tuple[int, bool]:
    """Bytes of the files below a folder, and whether these are all; links are not followed."""
    size, whole, waiting = 0, True, [str(path)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if time.monotonic() > deadline:
                        return size, False
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
        except OSError:
            whole = False
    return size, whole


def _free(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None
