"""What reads images: labels are known up front, pixels on demand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from ftc.errors import InputError


class Reader(Protocol):
    """Images with labels.

    Attributes:
        targets: int64 (N,), head columns.
        class_names: one name a head column.
    """

    targets: Tensor
    class_names: tuple[str, ...]

    def decode(self, index: int) -> Image.Image:
        """The image of a sample."""
        ...


class UnlabelledFolder:
    """All images below a folder, without labels: a pool for the unlabelled estimators.

    Args:
        root: the folder; its subfolders' names mean nothing.
        mode: Pillow's mode of the decoded images, ``RGB`` or ``L``.

    Raises:
        InputError: no such folder, or no image in it.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, root: str, mode: str = "RGB") -> None:
        self.mode = mode
        self.files = sorted(p for p in Path(root).rglob("*") if p.suffix.lower() in IMG_EXTENSIONS)
        if not self.files:
            raise InputError(f"{root}: no image in this folder; choose from {', '.join(IMG_EXTENSIONS)}")
        self.targets = torch.full((len(self.files),), -1)

    def decode(self, index: int) -> Image.Image:
        with Image.open(self.files[index]) as image:
            return image.convert(self.mode)


class ArrayReader:
    """Images held in memory.

    Args:
        images: uint8 (N, H, W) or (N, H, W, 3).
        targets: (N,), head columns.
        class_names: one name a head column.

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
