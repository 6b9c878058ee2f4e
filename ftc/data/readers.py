"""What reads images: labels are known up front, pixels on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

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
