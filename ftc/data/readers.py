"""What reads images: labels are known up front, pixels on demand.

A reader's labels index its own class names; `ftc.data.columns` makes head columns of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ftc.data.decode import decode_image
from ftc.errors import InputError

OnError = Literal["error", "skip"]


class Reader(Protocol):
    """Images with labels.

    Attributes:
        targets: int64 (N,), indices into ``class_names``.
        class_names: one name a class.
    """

    targets: Tensor
    class_names: tuple[str, ...]

    def decode(self, index: int) -> Image.Image:
        """The image of a sample."""
        ...


@runtime_checkable
class EncodedReader(Reader, Protocol):
    """A reader of encoded images, which can be checked and cached without knowing where they come from.

    Attributes:
        mode: Pillow's mode of the decoded images, ``RGB`` or ``L``.
    """

    mode: str

    def encoded(self, index: int) -> bytes:
        """The encoded image, as it is stored."""
        ...

    def name(self, index: int) -> str:
        """What messages and manifests call the sample: its path, or its row."""
        ...

    def stamp(self, index: int) -> str:
        """Changes when the sample's content does, and costs no reading: path, size and time of change."""
        ...


def sample_name(reader: Reader, index: int) -> str:
    """What messages and manifests call a sample."""
    return reader.name(index) if isinstance(reader, EncodedReader) else f"sample {index}"


class FileReader:
    """Image files with labels: the base of folders and lists.

    Args:
        root: the files' paths are relative to it.
        files: posix paths, one a sample.
        targets: (N,), indices into ``class_names``.
        class_names: one name a class.
        mode: Pillow's mode of the decoded images, ``RGB`` or ``L``.
        on_error: what a file that is not there is: an ``error``, or left out and counted (``skip``).

    Attributes:
        skipped: what was left out and why, by sample name.

    Raises:
        InputError: files that are not there, unless they are skipped.
    """

    def __init__(
        self,
        root: Path | str,
        files: Sequence[str],
        targets: Any,
        class_names: Iterable[str],
        mode: str = "RGB",
        on_error: OnError = "error",
    ) -> None:
        self.root = Path(root)
        self.class_names = tuple(class_names)
        self.mode = mode
        self.skipped: dict[str, str] = {}
        targets = torch.as_tensor(targets, dtype=torch.int64)
        missing = _missing(self.root, files)
        if missing:
            reasons = dict.fromkeys(sorted(missing), "no such file")
            refuse_or_skip(self, reasons, on_error, f"of {len(files)} in {self.root}")
            present = [i for i, file in enumerate(files) if file not in missing]
            files, targets = [files[i] for i in present], targets[present]
        self.files = tuple(files)
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
    """A folder with one subfolder a class, images at any depth below.

    Args:
        root: the folder.
        classes: the subfolders to read; by default all, in the order of their names.
        mode, on_error: see `FileReader`.

    Raises:
        InputError: no such folder, no subfolder in it, or one without images unless it is skipped.
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
            raise InputError(f"{root}: no subfolder; images belong into one subfolder a class")
        names = found if classes is None else list(classes)
        absent = [name for name in names if name not in found]
        if absent:
            raise InputError(f"{root}: no subfolder {', '.join(absent)}; choose from {', '.join(found)}")
        files: list[str] = []
        targets: list[int] = []
        empty: dict[str, str] = {}
        for label, name in enumerate(names):
            inside = _images_below(root, name)
            if not inside:
                empty[name] = f"no image in it; images end in {', '.join(IMG_EXTENSIONS)}"
            files += inside
            targets += [label] * len(inside)
        super().__init__(root, files, targets, names, mode, on_error)
        if empty:
            refuse_or_skip(self, empty, on_error, f"of {len(names)} class folders in {root}")


class ListFile(FileReader):
    """List files: one image a line, ``relative/path.jpg LABEL``; the path may contain spaces.

    Args:
        file: the list, or several that are read one after the other.
        root: what their paths are relative to.
        class_names: the name of every label. By default the folders that the images lie in name the classes,
            in the order of the labels.
        mode, on_error: see `FileReader`. Besides missing files, ``skip`` leaves out repeated lines and labels
            without a name.

    Raises:
        InputError: a line that is none, a repeated file, a label without a name or with several.
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
        for where, path, label in lines:
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


class HubDataset:
    """A data set of the Hugging Face hub, or a local folder that its library reads (parquet, image folders).

    Encoded images are read from the memory-mapped tables; nothing is decoded up front.

    Args:
        path: hub id or local folder.
        split: the data set's name of it, slices such as ``train[:80%]`` included.
        image: name of the column of images.
        label: name of the column of labels: class labels, or text.
        where: values of further columns; other rows are left out.
        config: name of the data set's configuration, where it has several.
        mode: Pillow's mode of the decoded images, ``RGB`` or ``L``.

    Raises:
        InputError: no such data set, split or column, or a label that is neither class label nor text.
    """

    def __init__(
        self,
        path: str,
        split: str,
        image: str = "image",
        label: str = "label",
        where: Mapping[str, Any] | None = None,
        config: str | None = None,
        mode: str = "RGB",
    ) -> None:
        import datasets

        datasets.disable_progress_bars()
        try:
            table = datasets.load_dataset(path, config, split=split)
        except Exception as error:  # the library's errors share no base class
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: could not read split {split}: {reason}") from error
        for column in (image, label, *(where or {})):
            if column not in table.column_names:
                raise InputError(
                    f"{path}: no column {column}; choose from {', '.join(map(str, table.column_names))}"
                )
        rows = np.arange(len(table))
        for column, value in (where or {}).items():
            values = np.asarray(table[column][:])
            rows = rows[values[rows] == value]
            if not len(rows):
                choices = ", ".join(map(str, sorted(set(values.tolist()))))
                raise InputError(f"{path}: no row with {column}={value}; choose from {choices}")
        labels = np.asarray(table[label][:])[rows]
        feature = table.features[label]
        if isinstance(feature, datasets.ClassLabel):
            self.class_names = tuple(feature.names)
            self.targets = torch.as_tensor(labels, dtype=torch.int64)
        elif labels.dtype.kind in "UO" and all(isinstance(v, str) for v in labels.tolist()):
            names, targets = np.unique(labels, return_inverse=True)
            self.class_names = tuple(str(name) for name in names)
            self.targets = torch.as_tensor(targets, dtype=torch.int64)
        else:
            raise InputError(f"{path}: column {label} has no class names; choose one of class labels or text")
        self.path = path
        self.mode = mode
        self._rows = rows
        self._images = table.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        self._column = image
        self._identity = f"{path}|{split}|{table._fingerprint}"

    def decode(self, index: int) -> Image.Image:
        return decode_image(self.encoded(index), self.mode)

    def encoded(self, index: int) -> bytes:
        entry = self._images[int(self._rows[index])][self._column]
        return entry["bytes"] if entry["bytes"] is not None else Path(entry["path"]).read_bytes()

    def name(self, index: int) -> str:
        return f"row {self._rows[index]} of {self.path}"

    def stamp(self, index: int) -> str:
        return f"{self._identity}|{self._rows[index]}"


class TorchvisionDataset:
    """A classification data set of torchvision.

    Args:
        name: class in ``torchvision.datasets``, such as ``CIFAR100``.
        root: its folder.
        mode: Pillow's mode of the decoded images, ``RGB`` or ``L``.
        kwargs: further arguments, such as ``train`` or ``split``.

    Raises:
        InputError: no such class, a folder without its files, or one whose labels have no names.
    """

    def __init__(self, name: str, root: Path | str, mode: str = "RGB", **kwargs: Any) -> None:
        import torchvision.datasets

        cls = getattr(torchvision.datasets, name, None)
        if cls is None:
            raise InputError(f"{name}: no data set of torchvision; see torchvision.datasets for the names")
        try:
            self.dataset = cls(str(root), **kwargs)
        except (RuntimeError, FileNotFoundError, TypeError, ValueError) as error:
            raise InputError(f"torchvision's {name} in {root}: {' '.join(str(error).split())}") from error
        names = next((getattr(self.dataset, a) for a in _NAMES if hasattr(self.dataset, a)), None)
        if names is None:
            raise InputError(f"torchvision's {name}: has no class names; choose another reader")
        self.mode = mode
        self.class_names = tuple(n if isinstance(n, str) else n[0] for n in names)
        labels = next((getattr(self.dataset, a) for a in _LABELS if hasattr(self.dataset, a)), None)
        if labels is None:
            labels = [self.dataset[i][1] for i in range(len(self.dataset))]
        self.targets = torch.as_tensor(labels, dtype=torch.int64)

    def decode(self, index: int) -> Image.Image:
        return cast(Image.Image, self.dataset[index][0]).convert(self.mode)


# Where torchvision's data sets keep names and labels; what is not there is read from the samples.
_NAMES = ("classes", "categories")
_LABELS = ("targets", "labels", "_labels", "y")


class ArrayReader:
    """Images held in memory.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
        targets: (N,), indices into ``class_names``.
        class_names: one name a class.

    Raises:
        InputError: shapes or dtypes that do not fit, or a label without a name.
    """

    def __init__(self, images: Any, targets: Any, class_names: Sequence[str]) -> None:
        self.images = np.asarray(images)
        self.targets = torch.as_tensor(targets).long()
        self.class_names = tuple(class_names)
        if self.images.dtype != np.uint8 or self.images.ndim not in (3, 4):
            raise InputError(
                f"images have dtype {self.images.dtype} and shape {self.images.shape}; "
                "give uint8 of shape (N, H, W) or (N, H, W, 3)"
            )
        if len(self.images) != len(self.targets):
            raise InputError(f"{len(self.images)} images but {len(self.targets)} targets; give one a sample")
        if len(self.targets) and not 0 <= int(self.targets.min()) <= int(self.targets.max()) < len(
            class_names
        ):
            raise InputError(
                f"targets run outside the {len(class_names)} class names; map them to head columns"
            )

    def decode(self, index: int) -> Image.Image:
        return Image.fromarray(self.images[index])


class UnlabelledFolder(FileReader):
    """All images below a folder, without labels: a pool for the unlabelled estimators.

    Args:
        root: the folder; its subfolders' names mean nothing.
        mode: Pillow's mode of the decoded images, ``RGB`` or ``L``.

    Raises:
        InputError: no such folder, or no image in it.
    """

    def __init__(self, root: Path | str, mode: str = "RGB") -> None:
        files = _images_below(Path(root))
        if not files:
            raise InputError(f"{root}: no image in this folder; choose from {', '.join(IMG_EXTENSIONS)}")
        super().__init__(root, files, [-1] * len(files), (), mode)


class Selection:
    """Some samples of a reader, under labels of one's own.

    Args:
        base: the reader.
        rows: int64 (N,), its samples.
        targets: int64 (N,), their labels; by default the reader's.
        class_names: what the labels index; by default the reader's.
    """

    def __init__(
        self,
        base: Reader,
        rows: Tensor,
        targets: Tensor | None = None,
        class_names: Iterable[str] | None = None,
    ) -> None:
        self.base = base
        self.rows = rows.tolist()
        self.targets = base.targets[rows] if targets is None else targets
        self.class_names = base.class_names if class_names is None else tuple(class_names)

    def decode(self, index: int) -> Image.Image:
        return self.base.decode(self.rows[index])


class EncodedSelection(Selection):
    """Some samples of a reader of encoded images."""

    base: EncodedReader

    @property
    def mode(self) -> str:
        return self.base.mode

    def encoded(self, index: int) -> bytes:
        return self.base.encoded(self.rows[index])

    def name(self, index: int) -> str:
        return self.base.name(self.rows[index])

    def stamp(self, index: int) -> str:
        return self.base.stamp(self.rows[index])


def select(
    reader: Reader, rows: Tensor, targets: Tensor | None = None, class_names: Iterable[str] | None = None
) -> Selection:
    """Some samples of a reader, which stays checkable and cacheable where it was."""
    kind = EncodedSelection if isinstance(reader, EncodedReader) else Selection
    return kind(reader, rows, targets, class_names)


def read_list(file: Path) -> list[tuple[str, int]]:
    """The lines of a list file: path and label, the label being the last field.

    Raises:
        InputError: no such file, no line in it, or a line that does not end in a whole number.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a list file that can be read ({type(error).__name__})") from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        if not path or not label.lstrip("-").isdigit():
            raise InputError(f"{file}: line {number} is {line!r}; write one image a line, 'path LABEL'")
        lines.append((path.strip(), int(label)))
    if not lines:
        raise InputError(f"{file}: no line in it; write one image a line, 'path LABEL'")
    return lines


class _Skips(Protocol):
    skipped: dict[str, str]


def refuse_or_skip(reader: _Skips, reasons: Mapping[str, str], on_error: OnError, of: str) -> None:
    """Note what is left out of a reader, or raise.

    Raises:
        InputError: unless it is skipped; names the first few.
    """
    if on_error == "error":
        raise InputError(f"{some(reasons)} ({len(reasons)} {of}); mend them, or set data.on_error=skip")
    reader.skipped.update(reasons)


def some(reasons: Mapping[str, str], most: int = 3) -> str:
    """The first few of many reasons, by name."""
    named = [f"{name}: {reason}" for name, reason in list(reasons.items())[:most]]
    return "; ".join(named) + ("; …" if len(reasons) > most else "")


def _images_below(root: Path, folder: str = "") -> list[str]:
    """Image files at any depth, as sorted posix paths relative to the root."""
    files = []
    for parent, folders, names in os.walk(root / folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(parent).relative_to(root)
        images = (n for n in names if n.lower().endswith(IMG_EXTENSIONS) and not n.startswith("."))
        files += [(relative / name).as_posix() for name in images]
    return sorted(files)


def _missing(root: Path, files: Sequence[str]) -> set[str]:
    """Those that are not there, found by listing every folder once."""
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
    """Label → the folder that its images lie in, in the order of the labels."""
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
