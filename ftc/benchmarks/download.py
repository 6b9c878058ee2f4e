"""The download of originals from the Hugging Face hub, and their extraction from archives."""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ftc.benchmarks.catalogue import Benchmark
from ftc.errors import InputError
from ftc.hub import hub_within_reach

# What Python raises on archives that are broken.
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def download(benchmark: Benchmark, task: str | None) -> tuple[Path, dict[str, str]]:
    """Download a benchmark's files from the hub.

    Returns:
        The folder or archive in the hub's cache, and its ``hub`` id and ``revision``.

    Raises:
        InputError: the hub has no copy, or none that can be downloaded.
    """
    hub = benchmark.tasks[task] if task else benchmark.hub
    if hub is None:
        raise InputError(
            f"{benchmark.name}: the hub has no copy; give the original, from {benchmark.origin}, as --from"
        )
    from huggingface_hub import snapshot_download

    try:
        with hub_within_reach():
            snapshot = Path(snapshot_download(hub, repo_type="dataset", allow_patterns=[benchmark.pattern]))
    except Exception as error:  # the client's errors share no base class
        reason = (str(error).strip().splitlines() or [""])[0]
        origin = f"https://huggingface.co/datasets/{hub}" if task else benchmark.origin
        raise InputError(
            f"{hub}: could not be downloaded ({type(error).__name__}: {reason}); without a network, give the "
            f"original, from {origin}, as --from"
        ) from error
    if benchmark.pattern == "*.parquet":
        found = snapshot
    else:
        archives = sorted(snapshot.rglob(benchmark.pattern))
        if len(archives) != 1:
            raise InputError(
                f"{hub}: has {len(archives)} files {benchmark.pattern} instead of one; give the original, "
                f"from {benchmark.origin}, as --from"
            )
        found = archives[0]
    return found, {"hub": hub, "revision": snapshot.name}


def extract(archive: Path, folder: Path) -> Path:
    """Extract an archive into a folder, and return the folder.

    Raises:
        InputError: a file that is no archive, a broken one, an encrypted one, or one that is packed in a way
            that Python does not unpack.
    """
    name = archive.name.lower()
    if not name.endswith(_ARCHIVES):
        raise InputError(f"--from {archive}: neither a folder nor an archive ({', '.join(_ARCHIVES)})")
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as packed:
                _extract_files(packed, folder)
    except RuntimeError as error:  # zipfile's, on a password or on an unknown method of compression
        reason = " ".join(str(error).split())
        raise InputError(f"--from {archive}: {reason}; unpack it, and give the folder") from error
    except BROKEN as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--from {archive}: a broken archive ({reason}); get it again") from error
    return folder


def _extract_files(packed: tarfile.TarFile, folder: Path) -> None:
    """Extract regular files only, none outside the folder; older Pythons have no filter for this."""
    for member in packed:
        if not member.isfile():
            continue
        path = PurePosixPath(member.name)
        content = packed.extractfile(member)
        if content is None or path.is_absolute() or ".." in path.parts:
            raise tarfile.TarError(f"{member.name} lies outside")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with content, target.open("wb") as file:
            shutil.copyfileobj(content, file)
