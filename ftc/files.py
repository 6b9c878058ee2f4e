"""Files that are written whole or not at all, texts that users write, and digests of content."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftc.errors import InputError

_PART = ".part-"


@contextmanager
def written_whole(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder that becomes ``path`` when the block succeeds.

    Readers see the old file or the new one, never a part; after an error the old one is left as it was. It is
    on the disk when the block has ended, also after a loss of power.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_PART}{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private, and so do some writers; a run's files follow the umask like any other.
        temporary.chmod(0o666 & ~_umask())
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path, replace: bool) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its place when the block succeeds.

    After an error what was there is left as it was. An old folder is removed only once the new one is there.

    Args:
        path: the folder.
        replace: whether a folder that is there by then may be replaced.

    Raises:
        InputError: it is there by then, and may not be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{_PART}{path.name}-"))
    old = temporary.with_name(f"{temporary.name}-old")
    try:
        yield temporary
        umask = _umask()
        for written in (*temporary.rglob("*"), temporary):
            written.chmod((0o777 if written.is_dir() else 0o666) & ~umask)
            flush(written)
        if path.exists():
            if not replace:
                raise InputError(f"{path}: was made by another command meanwhile; choose another folder")
            path.rename(old)
        temporary.rename(path)
        flush(path.parent)
    finally:
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


class DamagedError(InputError):
    """A file of our own that cannot be read back."""


@contextmanager
def damage(path: Path | str) -> Iterator[None]:
    """Turn whatever reading a file of our own raises into one error that names it.

    Raises:
        DamagedError: the file is not what was written.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # damaged content raises almost anything
        raise DamagedError(f"{path}: is damaged ({type(error).__name__}); remove it") from error


def flush(path: Path) -> None:
    """Have the system write a file, or a folder's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems have no such thing for folders.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def lock_beside(path: Path) -> Path:
    """The file whose lock means that a process writes to a file or folder."""
    return path.with_name(f".{path.name}.lock")


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


def existing_file(text: str | None) -> Path | None:
    """The file that a text names; None where it names none."""
    try:
        return Path(text) if text is not None and Path(text).is_file() else None
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        return None


# Control characters, Unicode's ends of lines and paragraphs, and the surrogates that stand for bytes of file
# names that are not UTF-8.
_NOT_PRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """A name as valid UTF-8 on one line: what cannot be printed becomes an escape such as ``\\xff``."""
    return _NOT_PRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    # Python has bytes of file names that are not UTF-8 as 0xDC00 plus the byte.
    return f"\\x{code & 0xFF:02x}" if code < 0x100 or 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def read_text(path: Path, subject: str | None = None) -> str:
    """Read a UTF-8 file, with or without a byte-order mark; line ends stay as they are.

    Args:
        path: the file.
        subject: what messages begin with; None for the path.

    Raises:
        InputError: no such file, or a file that is not UTF-8 text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{subject or path}: cannot be read ({error.strerror})") from error
    return decode_text(content, subject or str(path))


def decode_text(content: bytes, subject: str) -> str:
    """Decode UTF-8, with or without a byte-order mark.

    Raises:
        InputError: the content is not UTF-8 text; the message begins with the subject.
    """
    # Latin letters in UTF-16 have a zero byte each.
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content[:2]:
        raise InputError(f"{subject}: is UTF-16 text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{subject}: is not UTF-8 text; save it as UTF-8") from error
