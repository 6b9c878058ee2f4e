"""Files that are written whole or not at all, and digests of content."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PART = ".part-"


@contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder that becomes ``path`` when the block succeeds.

    Readers see the old file or the new one, never a part; after an error the old one is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_PART}{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        # mkstemp makes files private; what a run writes follows the umask like any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_parts(folder: Path, stem: str = "") -> None:
    """Remove temporary files that killed processes left in a folder or below it.

    Call it only while nobody else writes there: with the lock of the folder, or of the files of this stem.
    """
    for part in folder.rglob(f"{_PART}{stem}*"):
        part.unlink(missing_ok=True)


def digest(content: Any) -> str:
    """Eight hexadecimal digits that stand for JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def file_digest(path: str | None) -> str | None:
    """The SHA-256 of a file's content; None without a path."""
    if path is None:
        return None
    whole = hashlib.sha256()
    with Path(path).open("rb") as file:
        while part := file.read(1 << 20):
            whole.update(part)
    return whole.hexdigest()
