"""Readers of images: labels are known at once, pixels are read on demand.

A reader's labels index its own class names; `ftc.data.columns` maps them to head columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ftc.errors import InputError
from ftc.files import printable

OnError = Literal["error", "skip"]


class Reader(Protocol):
    """Images with labels.

    A reader may also have ``groups``, one name for each sample: samples of a group, such as frames of a
    video, stay on one side of every split, see `ftc.data.groups`.

    Attributes:
        targets: int64 (N,), indices into ``class_names``.
        class_names: one name per class.
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
        """The encoded image, as it is stored.

        Raises:
            OSError: it cannot be read.
        """
        ...

    def name(self, index: int) -> str:
        """The sample's name in messages and manifests: its path, or its row."""
        ...

    def stamp(self, index: int) -> str:
        """A text that changes with the sample's content, made without reading it: path, size and time.

        Raises:
            OSError: the sample cannot be looked at.
        """
        ...


def check_reader(key: str, reader: Any, labelled: bool = True) -> None:
    """Check that an object is a `Reader` whose labels have names.

    Args:
        key: the reader's key in the configuration, for messages.
        reader: any object.
        labelled: False allows the label −1 as well, for samples without one.

    Raises:
        InputError: it lacks something, or its targets or groups are not what a reader's are.
    """
    absent = [name for name in ("targets", "class_names", "decode") if not hasattr(reader, name)]
    if absent:
        kind = type(reader).__name__
        raise InputError(f"{key}: {kind} has no {', '.join(absent)}, see ftc.data.Reader; add what it lacks")
    targets, names = reader.targets, reader.class_names
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64 or targets.ndim != 1:
        kind = getattr(targets, "dtype", type(targets).__name__)
        shape = tuple(getattr(targets, "shape", ()))
        raise InputError(f"{key}: its targets are {kind} {shape}; give a tensor, torch.int64 (N,)")
    if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{key}: its class_names are no tuple of texts; give the name of every class")
    lowest, highest = (int(targets.min()), int(targets.max())) if len(targets) else (0, -1)
    if lowest < (0 if labelled else -1) or highest >= len(names):
        raise InputError(
            f"{key}: its targets run from {lowest} to {highest}, but it has {len(names)} class_names; give "
            "indices into these, and leave out what has no label"
        )
    groups = getattr(reader, "groups", None)
    if groups is not None and len(groups) != len(targets):
        raise InputError(f"{key}: it has {len(groups)} groups for {len(targets)} samples; give one a sample")


def sample_name(reader: Reader, index: int) -> str:
    """The name of a sample in messages and manifests: one line of UTF-8, see `ftc.files.printable`."""
    return printable(reader.name(index)) if isinstance(reader, EncodedReader) else f"sample {index}"


class ArrayReader:
    """Images held in memory.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
        targets: (N,), indices into ``class_names``.
        class_names: one name per class.

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


class Subset:
    """Some samples of a reader, with labels of their own.

    Args:
        base: the reader.
        rows: int64 (N,), its samples.
        targets: int64 (N,), their labels; by default the reader's.
        class_names: the names that the labels index; by default the reader's.
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
        groups = getattr(base, "groups", None)
        self.groups = None if groups is None else [groups[row] for row in self.rows]

    def decode(self, index: int) -> Image.Image:
        return self.base.decode(self.rows[index])


class EncodedSubset(Subset):
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
) -> Subset:
    """Select samples of a reader; those of an `EncodedReader` are an `EncodedReader` again.

    The arguments are those of `Subset`.
    """
    kind = EncodedSubset if isinstance(reader, EncodedReader) else Subset
    return kind(reader, rows, targets, class_names)


class _Skips(Protocol):
    skipped: dict[str, str]


def refuse_or_skip(reader: _Skips, reasons: Mapping[str, str], on_error: OnError, of: str) -> None:
    """Note what a reader leaves out, or raise.

    Raises:
        InputError: ``on_error`` is ``error``; the message names the first few.
    """
    if on_error == "error":
        raise InputError(f"{some(reasons)} ({len(reasons)} {of}); mend them, or set data.on_error=skip")
    reader.skipped.update(reasons)


def some(reasons: Mapping[str, str], most: int = 3) -> str:
    """The first few of many reasons, with their names, as text."""
    named = [f"{printable(name)}: {reason}" for name, reason in list(reasons.items())[:most]]
    return "; ".join(named) + ("; …" if len(reasons) > most else "")
