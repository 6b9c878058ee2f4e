"""Readers of data sets of the Hugging Face hub and of torchvision."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from ftc.data.decode import decode_image, status
from ftc.errors import InputError, require
from ftc.hub import hub_within_reach


class HubDataset:
    """A data set of the Hugging Face hub, or a local folder that its library reads (parquet, image folders).

    Encoded images are read from the memory-mapped tables; nothing is decoded up front.

    Args:
        path: hub id or local folder.
        split: name of the split in the data set; a slice such as ``train[:80%]`` is allowed.
        image: name of the column of images.
        label: name of the column of labels, which are class labels or text.
        where: required values of further columns, by name; rows with other values are left out.
        config: name of the data set's configuration, where it has several.
        mode: Pillow's mode of the decoded images, ``RGB`` or ``L``.
        group: name of the column of groups, such as a patient's or a video's number; None without one.

    Raises:
        InputError: the package ``datasets`` is not installed, no such data set, split or column, or a label
            that is neither class label nor text.
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
        group: str | None = None,
    ) -> None:
        require("datasets", "hub", path)
        import datasets

        datasets.disable_progress_bars()
        try:
            with hub_within_reach():
                table = datasets.load_dataset(path, config, split=split)
        except Exception as error:  # the library's errors share no base class
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: could not read split {split}: {reason}") from error
        for column in (image, label, *([] if group is None else [group]), *(where or {})):
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
        self.groups = None if group is None else [str(g) for g in np.asarray(table[group][:])[rows].tolist()]
        self.path = path
        self.mode = mode
        self._rows = rows
        self._images = table.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        self._column = image
        self._identity = f"{path}|{split}|{table._fingerprint}"

    def decode(self, index: int) -> Image.Image:
        return decode_image(self.encoded(index), self.mode)

    def encoded(self, index: int) -> bytes:
        entry = self._images[int(self._rows[index])][self._column] or {}
        if entry.get("bytes") is not None:
            return entry["bytes"]
        if entry.get("path") is None:
            raise FileNotFoundError(errno.ENOENT, "no image in this row")
        status(Path(entry["path"]))
        return Path(entry["path"]).read_bytes()

    def name(self, index: int) -> str:
        return f"row {self._rows[index]} of {self.path}"

    def stamp(self, index: int) -> str:
        return f"{self._identity}|{self._rows[index]}"


class TorchvisionDataset:
    """A classification data set of torchvision.

    Args:
        name: name of a class in ``torchvision.datasets``, such as ``CIFAR100``.
        root: folder of the data set.
        mode: Pillow's mode of the decoded images, ``RGB`` or ``L``.
        kwargs: further arguments of the class, such as ``train`` or ``split``.

    Raises:
        InputError: no such class, a folder without the data set's files, or a data set without class names.
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


# Attributes in which torchvision's data sets keep class names and labels; labels that are in none of them are
# read from the samples.
_NAMES = ("classes", "categories")
_LABELS = ("targets", "labels", "_labels", "y")
