"""Readers of image files: class folders, lists, and folders without labels."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ftc.data.decode import decode_image, image_suffixes
from ftc.data.readers import OnError, refuse_or_skip
from ftc.errors import InputError


class FileReader:
    """Image files with labels; the base class of readers of folders and lists.

    Args:
        root: folder that the files' paths are relative to.
        files: posix paths, one per sample.
        targets: (N,), indices into ``class_names``.
        class_names: one name per class.
        mode: Pillow's mode of the decoded images, ``RGB`` or ``L``.
        on_error: whether a missing file is an ``error``, or is left out and noted in `skipped` (``skip``).
        groups: the group of every file, see `ftc.data.groups`; None without any.

    Attributes:
        skipped: the reason for each sample that was left out, by its name.
        ignored: how many files of the folder are no images, by the end of their names.

    Raises:
        InputError: missing files, unless they are skipped.
    """

    targets: Tensor

    def __init__(
        self,
        root: Path | str,
        files: Sequence[str],
        targets: Any,
        class_names: Iterable[str],
        mode: str = "RGB",
        on_error: OnError = "error",
        groups: Sequence[str] | None = None,
    ) -> None:
        self.root = Path(root)
        self.class_names = tuple(class_names)
        self.mode = mode
        self.skipped: dict[str, str] = {}
        self.ignored: Mapping[str, int] = {}
        targets = torch.as_tensor(targets, dtype=torch.int64)
        missing = _missing(self.root, files)
        if missing:
            reasons = dict.fromkeys(sorted(missing), "no such file")
            refuse_or_skip(self, reasons, on_error, f"of {len(files)} in {self.root}")
            present = [i for i, file in enumerate(files) if file not in missing]
            files, targets = [files[i] for i in present], targets[present]
            groups = groups and [groups[i] for i in present]
        self.files = tuple(files)
        self.groups = groups
        self.targets = targets

    def decode(self, index: int) -> Image.Image:
        return decode_image(self.root / self.files[index], self.mode)

    def encoded(self, index: int) -> bytes:
        return (self.root / self.files[index]).read_bytes()

    def name(self, index: int) -> str:
        return self.files[index]

    def stamp(self, index: int) -> str:
        path = self._folder / self.files[index]
        status = path.stat()
        return f"{path}|{status.st_size}|{status.st_mtime_ns}"

    @cached_property
    def _folder(self) -> Path:
        return self.root.resolve()


class ClassFolders(FileReader):
    """A folder with one subfolder per class, and images at any depth below.

    Args:
        root: the folder.
        classes: the subfolders to read; by default all, in the order of their names.
        mode, on_error: see `FileReader`; an empty subfolder is treated as a missing file is.

    Raises:
        InputError: no such folder, a missing subfolder, or one without images unless it is skipped.
    """

    def __init__(
        self,
        root: Path | str,
        classes: Sequence[str] | None = None,
        mode: str = "RGB",
        on_error: OnError = "error",
    ) -> None:
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; give one with a subfolder a class")
        found = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not found:
            raise InputError(f"{root}: no subfolder; put the images into one subfolder per class")
        names = found if classes is None else list(classes)
        absent = [name for name in names if name not in found]
        if absent:
            raise InputError(f"{root}: no subfolder {', '.join(absent)}; choose from {', '.join(found)}")
        files: list[str] = []
        targets: list[int] = []
        empty: dict[str, str] = {}
        ignored: Counter[str] = Counter()
        # A link to the whole folder or to another class would give that one's images a wrong label.
        visited = {os.path.realpath(root), *(os.path.realpath(root / name) for name in names)}
        for label, name in enumerate(names):
            inside, others = _images_below(root, name, visited)
            ignored += others
            if not inside:
                empty[name] = f"no image in it{_listed(others)}"
            files += inside
            targets += [label] * len(inside)
        super().__init__(root, files, targets, names, mode, on_error)
        self.ignored = ignored
        if empty:
            refuse_or_skip(self, empty, on_error, f"of {len(names)} class folders in {root}")


class ListFile(FileReader):
    """List files: one image per line, ``relative/path.jpg LABEL``; the path may contain spaces.

    Args:
        file: the list file, or several, which are read one after the other.
        root: folder that the paths are relative to.
        class_names: the name of every label. By default the folders that the images lie in name the classes,
            in the order of the labels.
        mode, on_error: see `FileReader`. Besides missing files, ``skip`` leaves out repeated lines and labels
            without a name.

    Raises:
        InputError: a malformed line, a repeated file, or a label with no name or several names.
    """

    def __init__(
        self,
        file: Path | str | Sequence[Path | str],
        root: Path | str,
        class_names: Sequence[str] | None = None,
        mode: str = "RGB",
        on_error: OnError = "error",
    ) -> None:
        lists = [Path(file)] if isinstance(file, (str, Path)) else [Path(one) for one in file]
        lines = [(one.name, *line) for one in lists for line in read_list(one)]
        kept: dict[str, int] = {}
        wrong: dict[str, str] = {}
        for where, written, label in lines:
            path = posixpath.normpath(written)
            if path in kept:
                labels = "" if kept[path] == label else f", with labels {kept[path]} and {label}"
                wrong[path] = f"named twice in {where}{labels}"
            elif class_names is not None and not 0 <= label < len(class_names):
                wrong[path] = f"label {label} in {where} is outside the {len(class_names)} classes"
            else:
                kept[path] = label
        named = ", ".join(map(str, lists))
        names = _names_of_labels(named, kept) if class_names is None else dict(enumerate(class_names))
        order = {label: i for i, label in enumerate(names)}
        targets = [order[label] for label in kept.values()]
        super().__init__(root, list(kept), targets, names.values(), mode, on_error)
        if wrong:
            refuse_or_skip(self, wrong, on_error, f"of {len(lines)} lines of {named}")


class UnlabelledFolder(FileReader):
    """All images below a folder, without labels: a pool for unlabelled calibrators.

    Args:
        root: the folder; the names of its subfolders are ignored.
        mode: Pillow's mode of the decoded images, ``RGB`` or ``L``.

    Raises:
        InputError: no such folder, or no image in it.
    """

    def __init__(self, root: Path | str, mode: str = "RGB") -> None:
        files, others = _images_below(Path(root), "", {os.path.realpath(root)})
        if not files:
            raise InputError(f"{root}: no image in this folder{_listed(others)}")
        super().__init__(root, files, [-1] * len(files), (), mode)
        self.ignored = others


def read_list(file: Path) -> list[tuple[str, int]]:
    """Read the lines of a list file: path and label, which is the last field.

    Raises:
        InputError: no such file, no line in it, or a line that does not end in a whole number.
    """
    return [(path, int(label)) for path, label in read_fields(file, "path LABEL", r"-?[0-9]+")]


def read_fields(file: Path, form: str, last: str = ".+") -> list[tuple[str, str]]:
    """Read lines of two fields, a path, which may contain spaces, and another.

    Args:
        file: the file.
        form: what a line is, for messages.
        last: regular expression that the other field matches.

    Raises:
        InputError: no such file, no line in it, or a line of another form.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a list file that can be read ({type(error).__name__})") from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        path, _, field = line.strip().rpartition(" ")
        if not path or not re.fullmatch(last, field):
            raise InputError(f"{file}: line {number} is {line!r}; write one image a line, '{form}'")
        lines.append((path.strip(), field))
    if not lines:
        raise InputError(f"{file}: no line in it; write one image a line, '{form}'")
    return lines


def _images_below(root: Path, folder: str, visited: set[str]) -> tuple[list[str], Counter[str]]:
    """Image files at any depth, links followed, and how many others there are, by the end of their names.

    Args:
        root: the files are sorted posix paths relative to it.
        folder: the folder inside it to begin in.
        visited: real folders that are not entered any more; those that are entered join them.
    """
    files: list[str] = []
    others: Counter[str] = Counter()
    for parent, folders, names in os.walk(root / folder, followlinks=True):
        fresh = {name: os.path.realpath(Path(parent, name)) for name in folders if not name.startswith(".")}
        folders[:] = []
        for name, real in fresh.items():
            if real not in visited:
                visited.add(real)
                folders.append(name)
        relative = Path(parent).relative_to(root)
        for name in names:
            suffix = PurePosixPath(name).suffix.lower()
            if suffix in image_suffixes() and not name.startswith("."):
                files.append((relative / name).as_posix())
            elif not name.startswith("."):
                others[suffix or "no ending"] += 1
    return sorted(files), others


def _listed(others: Mapping[str, int]) -> str:
    """What a folder holds instead of images, for a message."""
    return f"; it has {counted(others)}, which Pillow does not read here as images" if others else ""


def counted(ignored: Mapping[str, int]) -> str:
    """Counts by ending as text: ``2 .txt, 1 .heic``."""
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(ignored.items()))


def _missing(root: Path, files: Sequence[str]) -> set[str]:
    """The files that do not exist, found by listing every folder once."""
    listed: dict[str, set[str]] = {}
    missing = set()
    for file in files:
        path = PurePosixPath(file)
        parent = str(path.parent)
        if parent not in listed:
            try:
                listed[parent] = {entry.name for entry in (root / parent).iterdir()}
            except OSError:
                listed[parent] = set()
        if path.name not in listed[parent]:
            missing.add(file)
    return missing


def _names_of_labels(file: str, labels: Mapping[str, int]) -> dict[int, str]:
    """The name of the folder that each label's images lie in, in the order of the labels."""
    names: dict[int, str] = {}
    for path, label in labels.items():
        folder = PurePosixPath(path).parent.name
        if names.setdefault(label, folder) != folder or not folder:
            raise InputError(
                f"{file}: label {label} has images in {names[label] or '.'} and {folder or '.'}; "
                "give class_names, since folders do not name the classes"
            )
    names = dict(sorted(names.items()))
    if len(set(names.values())) < len(names):
        twice = next(n for n in names.values() if list(names.values()).count(n) > 1)
        raise InputError(f"{file}: folder {twice} has images of several labels; give class_names")
    return names
