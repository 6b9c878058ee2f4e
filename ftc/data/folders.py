"""Readers of image files: class folders, lists, and folders without labels."""

from __future__ import annotations

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ftc.data.decode import decode_image, status
from ftc.data.listing import counted, images_below, read_list
from ftc.data.readers import OnError, refuse_or_skip, some
from ftc.errors import InputError
from ftc.files import printable


class FileReader:
    """Image files with labels; the base class of readers of folders and lists.

    Args:
        root: folder that the files' paths are relative to.
        files: posix paths, one per sample.
        targets: (N,), indices into ``class_names``.
        class_names: one name per class; what cannot be printed in it is escaped.
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
        self.class_names = tuple(map(printable, class_names))
        self.mode = mode
        self.skipped: dict[str, str] = {}
        self.ignored: Mapping[str, int] = {}
        targets = torch.as_tensor(targets, dtype=torch.int64)
        missing = _missing(self.root, files)
        if missing:
            refuse_or_skip(self, missing, on_error, f"of {len(files)} in {self.root}")
            present = [i for i, file in enumerate(files) if file not in missing]
            files, targets = [files[i] for i in present], targets[present]
            groups = groups and [groups[i] for i in present]
        self.files = tuple(files)
        self.groups = groups
        self.targets = targets

    def decode(self, index: int) -> Image.Image:
        return decode_image(self.root / self.files[index], self.mode)

    def encoded(self, index: int) -> bytes:
        path = self.root / self.files[index]
        status(path)
        return path.read_bytes()

    def name(self, index: int) -> str:
        return self.files[index]

    def stamp(self, index: int) -> str:
        path = self._folder / self.files[index]
        found = status(path)
        return f"{path}|{found.st_size}|{found.st_mtime_ns}"

    @cached_property
    def _folder(self) -> Path:
        return self.root.resolve()


class ClassFolders(FileReader):
    """A folder with one subfolder per class, and images at any depth below.

    Args:
        root: the folder.
        classes: the subfolders to read; by default all, in the order of their names.
        mode, on_error: see `FileReader`; treated as a missing file are a subfolder without images, a folder
            that cannot be listed and, where all are read, a link to nowhere beside the subfolders.

    Raises:
        InputError: no such folder, a missing subfolder, or what ``on_error`` does not skip.
    """

    def __init__(
        self,
        root: Path | str,
        classes: Sequence[str] | None = None,
        mode: str = "RGB",
        on_error: OnError = "error",
    ) -> None:
        root = Path(root)
        found, out_of_reach = _subfolders(root)
        names = found if classes is None else list(classes)
        wrong = out_of_reach if classes is None else {}
        absent = [name for name in names if name not in found]
        if absent:
            choices = ", ".join(map(printable, found))
            raise InputError(f"{root}: no subfolder {', '.join(absent)}; choose from {choices}")
        files: list[str] = []
        targets: list[int] = []
        ignored: Counter[str] = Counter()
        # A link to the whole folder or to another class would give that one's images a wrong label.
        visited = {os.path.realpath(root), *(os.path.realpath(root / name) for name in names)}
        for label, name in enumerate(names):
            inside, others, unlisted = images_below(root, name, visited)
            ignored += others
            wrong |= unlisted
            if not inside and name not in wrong:
                wrong[name] = f"no image in it{_listed(others)}"
            files += inside
            targets += [label] * len(inside)
        super().__init__(root, files, targets, names, mode, on_error)
        self.ignored = ignored
        if wrong:
            refuse_or_skip(self, wrong, on_error, f"of {len(names)} class folders in {root}")


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
        on_error: whether a folder that cannot be listed is an ``error``, or is left out (``skip``).

    Raises:
        InputError: no such folder, or no image in it.
    """

    def __init__(self, root: Path | str, mode: str = "RGB", on_error: OnError = "error") -> None:
        files, others, unlisted = images_below(Path(root), "", {os.path.realpath(root)})
        if not files:
            reason = f" ({some(unlisted)})" if unlisted else _listed(others)
            raise InputError(f"{root}: no image in this folder{reason}")
        super().__init__(root, files, [-1] * len(files), (), mode)
        self.ignored = others
        if unlisted:
            refuse_or_skip(self, unlisted, on_error, f"folders below {root}")


def _subfolders(root: Path) -> tuple[list[str], dict[str, str]]:
    """The names of the subfolders, sorted, and why others, such as links to nowhere, cannot be looked at.

    Raises:
        InputError: no such folder, or no subfolder in it.
    """
    try:
        names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{root}: no such folder; give one with a subfolder a class") from error
    except OSError as error:
        raise InputError(f"{root}: cannot be listed ({error.strerror}); give a folder of classes") from error
    found = []
    out_of_reach = {}
    for name in names:
        try:
            if stat.S_ISDIR((root / name).stat().st_mode):
                found.append(name)
        except OSError as error:  # a class whose folder is moved away must not be missing without a word
            out_of_reach[name] = error.strerror or ""
    if not found:
        raise InputError(f"{root}: no subfolder; put the images into one subfolder per class")
    return found, out_of_reach


def _listed(others: Mapping[str, int]) -> str:
    """What a folder holds instead of images, for a message."""
    return f"; it has {counted(others)}, which Pillow does not read here as images" if others else ""


def _missing(root: Path, files: Sequence[str]) -> dict[str, str]:
    """The files that do not exist, sorted, with the reason; found by listing every folder once."""
    listed: dict[str, set[str]] = {}
    reasons: dict[str, str] = {}
    missing = {}
    for file in files:
        path = PurePosixPath(file)
        parent = str(path.parent)
        if parent not in listed:
            listed[parent] = set()
            try:
                listed[parent].update(entry.name for entry in (root / parent).iterdir())
            except FileNotFoundError:
                pass
            except ValueError:  # in the words of older versions of Python
                reasons[parent] = "embedded null byte"
            except OSError as error:
                reasons[parent] = error.strerror or str(error)
        if path.name not in listed[parent]:
            missing[file] = reasons.get(parent, "no such file")
    return dict(sorted(missing.items()))


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
