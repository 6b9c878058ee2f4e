"""The layout of a benchmark's images and lists on disk, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ftc.benchmarks.catalogue import (
    BENCHMARKS,
    LISTS,
    MANIFEST,
    WILDS_COLUMNS,
    WILDS_IMAGES,
    Benchmark,
    command,
    find,
    read_table,
)
from ftc.benchmarks.download import download, extract
from ftc.benchmarks.emoji import WEIGHTS, concept, emoji_images, write_weights
from ftc.benchmarks.hub_tables import (
    IMAGE_FILES,
    Images,
    find_tables,
    images_of_tables,
    open_table,
    spaceless,
)
from ftc.benchmarks.lists import Group, Lists, check_listable, check_listed, official_lists, own_lists
from ftc.errors import InputError
from ftc.files import existing_file, file_digest, printable

_WNID = re.compile(r"n\d{8}")


class Prepared(BaseModel):
    """The content of ``prepared.json``: what a folder of a benchmark holds, and where it is from.

    Attributes:
        benchmark: its name.
        task: of VTAB, else None.
        origin: the folder or archive it was laid out from, or the repository on the hub and its revision.
        lists: ``own`` or ``official``; None for benchmarks without lists.
        groups: the regular expression of groups in our own lists, or the SHA-256 of the file; None without.
        file_names: ``original`` or ``numbered``; None for benchmarks without lists.
        total: number of images.
        images: their numbers by split, domain and class, as far as the benchmark has these.
        sha256: of every list file, by name; None for benchmarks without lists.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    task: str | None = None
    origin: dict[str, str]
    lists: Literal["own", "official"] | None = None
    groups: str | None = None
    file_names: Literal["original", "numbered"] | None = None
    total: int
    images: dict[str, Any]
    sha256: dict[str, str] | None = None


def prepare(
    name: str,
    to: Path,
    original: Path | None = None,
    lists: Path | None = None,
    task: str | None = None,
    groups: str | None = None,
) -> str:
    """Lay out a benchmark below the data root, unless that is done.

    Files are hard links where the file system allows it, else copies; images of the hub's tables are written
    with their original bytes.

    Args:
        name: key of `ftc.benchmarks.catalogue.BENCHMARKS`.
        to: the data root.
        original: original folder or archive; None downloads it from the hub.
        lists: clone of the paper's released repository that holds the official lists; None draws our own.
        task: the task of VTAB; None elsewhere.
        groups: images that our own lists keep on one side: a regular expression on paths, or a file, see
            `ftc.data.groups`; None where each is alone.

    Returns:
        One line that names the folder, its number of images and its lists.

    Raises:
        InputError: something is missing or wrong; nothing is left behind then.
    """
    benchmark = find(name)
    folder = benchmark.folder(to, task)
    _check_options(benchmark, lists, groups)
    named = None if groups is None else _name_of_groups(groups)
    if (folder / MANIFEST).is_file():
        return _ready(benchmark, folder, lists, named)
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there but was not prepared; move it away and give it as --from")
    if original is not None and not original.exists():
        raise InputError(f"--from {original}: no such file or folder")
    if benchmark.packages and (original is None or not original.is_dir()):
        given = name if original is None else f"--from {original}"
        raise InputError(f"{given}: wants a folder of npm packages; get it with: {command(benchmark, to)}")
    group = None if groups is None else _group_finder(groups)
    official = None if lists is None else official_lists(benchmark, lists)
    if original is None:
        original, origin = download(benchmark, task)
    else:
        origin = {"from": printable(str(original.resolve()))}
    # The temporary folder is beside the result, so that files can be linked and the result can be renamed.
    with (
        _made(folder.parent),
        tempfile.TemporaryDirectory(dir=to, prefix=f".{name}-") as temporary,
    ):
        result = Path(temporary) / "result"
        result.mkdir()
        opened = original if original.is_dir() else extract(original, Path(temporary) / "archive")
        try:
            content = _lay_out(benchmark, opened, result, official, group)
        except InputError as error:
            # Users know the archive, not the temporary folder that it is unpacked into.
            raise InputError(str(error).replace(str(opened), str(original))) from error
        manifest = Prepared(benchmark=name, task=task, origin=origin, groups=named, **content)
        text = manifest.model_dump_json(indent=2, exclude_none=True)
        (result / MANIFEST).write_text(text + "\n", encoding="utf-8")
        result.rename(folder)
    return _summary(folder, "prepared", manifest)


def _check_options(benchmark: Benchmark, lists: Path | None, groups: str | None) -> None:
    """Refuse lists and groups that a benchmark does not take."""
    name = benchmark.name
    if lists is not None and not benchmark.official:
        raise InputError(f"--lists {lists}: {name} has no official lists; leave it out")
    if groups is not None and benchmark.packages:
        raise InputError(f"--groups {groups}: {name} has groups of its own; leave it out")
    if groups is not None and (lists is not None or not benchmark.lists):
        whose = "the official lists are" if benchmark.lists else f"{name} has no lists of our own; it is"
        raise InputError(f"--groups {groups}: {whose} taken as published; leave it out")


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder, and remove it again if the block fails and nothing else is in it."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):
            for parent in missing:
                parent.rmdir()
        raise


def _name_of_groups(groups: str) -> str:
    """What stands for groups in a manifest: the regular expression, or the digest of the file."""
    file = existing_file(groups)
    return groups if file is None else str(file_digest(str(file)))


def _group_finder(groups: str) -> Group:
    from ftc.data.groups import group_finder

    return group_finder(groups, "--groups")


def _lay_out(
    benchmark: Benchmark, original: Path, result: Path, official: Lists | None, group: Group | None
) -> dict[str, Any]:
    if benchmark.tasks:
        return _lay_out_tables(original, result)
    if benchmark.packages:
        write_weights(result / WEIGHTS)
        return _lay_out_images(benchmark, original, result, None, concept)
    if benchmark.lists:
        return _lay_out_images(benchmark, original, result, official, group)
    return _lay_out_wilds(original, result)


def _ready(benchmark: Benchmark, folder: Path, lists: Path | None, groups: str | None) -> str:
    path = folder / MANIFEST
    try:
        manifest = Prepared.model_validate_json(path.read_bytes())
        if manifest.benchmark != benchmark.name or (manifest.lists is None) != (not benchmark.lists):
            raise ValueError("the manifest of another benchmark")
    except ValueError as error:  # of which pydantic's ValidationError is one
        raise InputError(
            f"{path}: not what ftc.prepare wrote; move {folder} away and give it as --from"
        ) from error
    if lists is not None and manifest.lists != "official":
        raise InputError(
            f"{folder}: is ready with lists of our own; for the official ones move it away, then give it as "
            f"--from together with --lists {lists}"
        )
    if groups is not None and manifest.groups != groups:
        raise InputError(
            f"{folder}: is ready with lists of other groups; move it away, then give it as --from together "
            f"with --groups {groups}"
        )
    return _summary(folder, "is ready", manifest)


def _summary(folder: Path, state: str, manifest: Prepared) -> str:
    line = f"{folder}: {state}, {manifest.total:,} images"
    if manifest.lists == "official":
        return f"{line}, official lists"
    if manifest.lists is not None:
        share = round(100 * BENCHMARKS[manifest.benchmark].train_share)
        benchmark = BENCHMARKS[manifest.benchmark]
        grouped = ", groups on one side" if manifest.groups or benchmark.packages else ""
        line = f"{line}, lists of our own ({share}/{100 - share} of every class{grouped})"
        if not benchmark.official:
            return line
        return (
            f"{line}, not official ones: give a clone of the paper's released repository as --lists for those"
        )
    return line


def _lay_out_images(
    benchmark: Benchmark, original: Path, result: Path, official: Lists | None, group: Group | None
) -> dict[str, Any]:
    """Lay out images in class folders, and their lists."""
    own_names, images = _images(benchmark, original)
    if official is not None and not own_names:
        raise InputError(
            f"{original}: its images have no file names of their own, so official lists do not fit; give the "
            f"original, from {benchmark.origin}, as --from"
        )
    files = []
    for relative, content in images:
        check_listable(relative)
        target = result / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            _place(content, target)
        files.append(relative)
    if not files:
        raise InputError(f"{original}: no image in its class folders; images end in {', '.join(IMAGE_FILES)}")
    if official is None:
        lists = own_lists(benchmark, files, group)
    else:
        check_listed(benchmark, official, set(files))
        lists = official
    (result / LISTS).mkdir()
    digests = {}
    for list_name, lines in lists.items():
        text = "".join(f"{path} {label}\n" for path, label in lines).encode()
        (result / LISTS / list_name).write_bytes(text)
        digests[list_name] = hashlib.sha256(text).hexdigest()
    return {
        "lists": "own" if official is None else "official",
        "file_names": "original" if own_names else "numbered",
        "total": len(files),
        "images": _counts(files),
        "sha256": digests,
    }


def _lay_out_tables(original: Path, result: Path) -> dict[str, Any]:
    """Lay out parquet files as they are."""
    counts: Counter[str] = Counter()
    (result / "data").mkdir()
    for file in find_tables(original):
        counts[file.stem.split("-")[0]] += open_table(file).metadata.num_rows
        _place(file, result / "data" / file.name)
    return {"total": sum(counts.values()), "images": dict(sorted(counts.items()))}


def _lay_out_wilds(original: Path, result: Path) -> dict[str, Any]:
    """Lay out iWildCam's tables and images as they are."""
    root = next((f for f in _folders(original) if (f / "metadata.csv").is_file()), None)
    if root is None:
        raise InputError(f"{original}: no metadata.csv in it; give the folder iwildcam_v2.0 of WILDS")
    rows = read_table(root / "metadata.csv", WILDS_COLUMNS)
    names = {row["y"]: row["name"] for row in read_table(root / "categories.csv", ("y", "name"))}
    folder = root / WILDS_IMAGES
    present = {f.name for f in folder.iterdir()} if folder.is_dir() else set()
    missing = [row["filename"] for row in rows if row["filename"] not in present]
    if missing:
        raise InputError(
            f"{folder}: {missing[0]} is not there ({len(missing)} of {len(rows)} images of metadata.csv); "
            "get the rest of the archive"
        )
    (result / WILDS_IMAGES).mkdir()
    for name in ("metadata.csv", "categories.csv"):
        _place(root / name, result / name)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        _place(folder / row["filename"], result / WILDS_IMAGES / row["filename"])
        counts[row["split"]][names.get(row["y"], row["y"])] += 1
    images = {split: dict(sorted(count.items())) for split, count in sorted(counts.items())}
    return {"total": len(rows), "images": images}


def _place(original: Path, target: Path) -> None:
    if not original.is_file():
        raise InputError(f"{original}: no regular file, or a link to nowhere; get it again, or leave it out")
    try:
        os.link(original.resolve(), target)  # the hub's cache holds symbolic links
    except FileExistsError:
        raise InputError(f"{original}: a second file for {target.name}; leave one out") from None
    except OSError:
        shutil.copy2(original, target)


def _folders(original: Path) -> Iterator[Path]:
    """A folder and those up to two levels below it, since archives wrap their content differently."""
    level = [original]
    for _ in range(3):
        yield from level
        level = [f for parent in level for f in sorted(parent.iterdir()) if f.is_dir()]


def _images(benchmark: Benchmark, original: Path) -> tuple[bool, Images]:
    """A benchmark's images, and whether they have file names of their own."""
    if benchmark.packages:
        return True, emoji_images(benchmark, original)
    for root in _folders(original):
        found = _class_folders(benchmark, root)
        if found:
            return True, _from_folders(found)
    if benchmark.columns and any(original.rglob("*.parquet")):
        return images_of_tables(benchmark, find_tables(original))
    wanted = ", ".join(benchmark.domains) or "named by WordNet ids such as n01443537"
    raise InputError(
        f"{original}: no folders {wanted}; give the original, from {benchmark.origin}, as --from"
    )


def _class_folders(benchmark: Benchmark, root: Path) -> list[tuple[str, Path]]:
    """The class folders with their paths in our layout; none if ``root`` is not the benchmark's root."""
    inside = {spaceless(f.name): f for f in sorted(root.iterdir()) if f.is_dir()}
    if not benchmark.domains:
        return [(name, f) for name, f in sorted(inside.items()) if _WNID.fullmatch(name)]
    if any(domain not in inside for domain in benchmark.domains):
        return []
    return [
        (f"{domain}/{spaceless(f.name)}", f)
        for domain in benchmark.domains
        for f in sorted(inside[domain].iterdir())
        if f.is_dir()
    ]


def _from_folders(folders: Iterable[tuple[str, Path]]) -> Images:
    for place, folder in folders:
        for file in sorted(folder.iterdir()):
            if file.name.lower().endswith(IMAGE_FILES) and not file.name.startswith("."):
                yield f"{place}/{file.name}", file


def _counts(files: Iterable[str]) -> dict[str, Any]:
    """The number of images by domain and class, or by class."""
    counts: dict[str, Any] = {}
    for file in sorted(files):
        *domains, name, _ = file.split("/")
        inner = counts
        for domain in domains:
            inner = inner.setdefault(domain, {})
        inner[name] = inner.get(name, 0) + 1
    return counts
