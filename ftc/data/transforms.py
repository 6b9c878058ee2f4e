"""Transforms: timm's evaluation preprocessing, with augmentation in front of it for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import timm.data
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

Transform = Callable[[Image.Image], Tensor]


def build_transforms(
    data_config: Mapping[str, Any], augmentation: Sequence[Callable[[Any], Any]] = ()
) -> tuple[Transform, Transform]:
    """Training and evaluation transforms, image → float32 (channels, H, W).

    Args:
        data_config: a timm model's data configuration; `timm.data.create_transform` makes the evaluation
            transform from it, so that whoever deploys the model with timm gets the same pixels.
        augmentation: image → image, applied in training only, before the evaluation transform.
    """
    evaluation = timm.data.create_transform(**data_config, is_training=False)
    return v2.Compose([*augmentation, evaluation]), evaluation
