"""What reads images: labels are known up front, pixels on demand.

A reader's labels index its own class names; `ftc.data.columns` makes head columns of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

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
