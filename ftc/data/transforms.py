"""Preprocessing: timm's evaluation transform, with augmentation in front of it for training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import PIL
import timm
import timm.data
import torch
from attrs import frozen
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2

from ftc.data.batch_transforms import Batched, apply, batched, normalise
from ftc.data.randomness import Draws, seed_transforms, undisturbed
from ftc.errors import InputError

# Increase this whenever the pixels stored of an image change.
_VERSION = 1

# Stored training images are larger than the model's input, so that random crops lose little to resampling.
_MARGIN = 8 / 7

# Transforms that draw nothing, and others, that treat tensors as they treat images, but faster.
_FIXED = (transforms.CenterCrop, transforms.Resize, v2.CenterCrop, v2.Resize)
_ON_TENSORS = (
    *_FIXED,
    *(transforms.RandomCrop, transforms.RandomResizedCrop, transforms.RandomVerticalFlip),
    *(v2.RandomCrop, v2.RandomResizedCrop, v2.RandomVerticalFlip),
)


@frozen
class Form:
    """The form in which a cache keeps images.

    Attributes:
        key: text of everything that the pixels depend on, besides the image.
        resize: function from an image to the one that is kept.
    """

    key: str
    resize: Callable[[Image.Image], Image.Image]


class Preprocessing:
    """The preprocessing of images for a model, for evaluation and for training.

    Images are uint8 until `normalise`, which takes batches and runs on their device.

    Args:
        data_config: a timm model's data configuration; `timm.data.create_transform` makes the evaluation
            transform from it, so that whoever deploys the model with timm gets the same pixels.
        augmentation: functions from image to image, applied before the evaluation transform in training only.
    """

    def __init__(
        self, data_config: Mapping[str, Any], augmentation: Sequence[Callable[[Any], Any]] = ()
    ) -> None:
        evaluation = timm.data.create_transform(**data_config, is_training=False)
        *resize, _, scale = evaluation.transforms
        self._resize = transforms.Compose(resize)
        self._mean = torch.as_tensor(scale.mean).reshape(-1, 1, 1)
        self._std = torch.as_tensor(scale.std).reshape(-1, 1, 1)
        self._config = dict(data_config)
        # Augmentations at the end of the list that need no resampling may as well follow the resizing.
        # There images are of one size, and mostly smaller.
        self._on_batches: list[Batched] = []
        single = list(augmentation)
        while single and (step := batched(single[-1])) is not None and not step.resamples:
            self._on_batches.insert(0, step)
            single.pop()
        self._on_images = [batched(step) or step for step in (*single, *resize)]
        self._takes_tensors = all(isinstance(step, (Batched, *_ON_TENSORS)) for step in self._on_images)

    @property
    def input_size(self) -> tuple[int, ...]:
        """Channels, height and width of the model's images."""
        return tuple(self._config["input_size"])

    def evaluation(self, image: Image.Image) -> Tensor:
        """timm's evaluation transform: float32 (channels, H, W)."""
        return self.normalise(self.resized(image)[None])[0]

    def resized(self, image: Image.Image) -> Tensor:
        """The image of `evaluation` before it is normalised: uint8 (channels, H, W)."""
        return _to_tensor(self._resize(image))

    def augmented(self, images: Sequence[Any], draws: Draws) -> Tensor:
        """Augment and resize images: uint8 (N, channels, H, W).

        Args:
            images: Pillow images, or pixels (H, W, channels), uint8.
            draws: one draw per image.
        """
        return self.jittered(self.cropped(images, draws), draws)

    def cropped(self, images: Sequence[Any], draws: Draws) -> Tensor:
        """The first part of `augmented`: everything that needs images one by one or changes their size."""
        values = [_to_tensor(image) if self._takes_tensors else _to_image(image) for image in images]
        with undisturbed():
            for number, step in enumerate(self._on_images):
                values = _applied(step, values, draws.at(number + 1))
        return torch.stack([_to_tensor(value) for value in values])

    def jittered(self, images: Tensor, draws: Draws) -> Tensor:
        """The second part of `augmented`, for batches on any device."""
        return apply(self._on_batches, images, draws)

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise uint8 images (N, channels, H, W) to float32 of the same shape.

        Raises:
            InputError: the model takes another number of channels.
        """
        if images.shape[1] != len(self._mean):
            raise InputError(
                f"images have {images.shape[1]} channels, the model takes {len(self._mean)}; "
                "set the reader's mode (data.mode where data have it), or model.kwargs.in_chans"
            )
        return normalise(images, self._mean, self._std)

    @cached_property
    def stored(self) -> Form:
        """The form kept for evaluation: the resized image, so that a cache changes no result."""
        return Form(_key("evaluation", {**self._config, "timm": timm.__version__}), self._resize)

    @cached_property
    def stored_for_training(self) -> Form:
        """The form kept for training: the whole image, in its own proportions.

        Its shorter side has 8/7 of the pixels of the model's longer side; smaller images keep their size.
        """
        short = math.ceil(_MARGIN * max(self._config["input_size"][1:]))
        return Form(_key("training", {"short": short}), partial(_shrunk, short=short))


def _applied(step: Any, values: list[Any], draws: Draws) -> list[Any]:
    """Apply a step to images, those of the same size together where the step takes batches."""
    if isinstance(step, Batched):
        return _by_size([_to_tensor(value) for value in values], partial(apply, [step]), draws)
    if isinstance(step, _FIXED):
        if all(isinstance(value, Tensor) for value in values):
            return _by_size(values, lambda batch, _: step(batch), draws)
        return [step(value) for value in values]
    changed = []
    for value, position in zip(values, draws.positions, strict=True):
        seed_transforms(draws.seed, position, draws.stage)
        changed.append(step(value if isinstance(step, _ON_TENSORS) else _to_image(value)))
    return changed


def _by_size(images: list[Tensor], change: Callable[[Tensor, Draws], Tensor], draws: Draws) -> list[Tensor]:
    """Change batches of the images (channels, H, W) that have the same size."""
    rows_of: dict[torch.Size, list[int]] = {}
    for row, image in enumerate(images):
        rows_of.setdefault(image.shape, []).append(row)
    changed = list(images)
    for rows in rows_of.values():
        batch = change(torch.stack([images[row] for row in rows]), draws.of(rows))
        for row, image in zip(rows, batch, strict=True):
            changed[row] = image
    return changed


def _to_tensor(image: Image.Image | np.ndarray | Tensor) -> Tensor:
    """An image as uint8 (channels, H, W)."""
    if isinstance(image, Tensor):
        return image
    pixels = image if isinstance(image, np.ndarray) else np.array(image)
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)


def _to_image(image: Image.Image | np.ndarray | Tensor) -> Image.Image:
    if isinstance(image, Tensor):
        return v2.functional.to_pil_image(image)
    if isinstance(image, np.ndarray):
        return Image.fromarray(image if image.shape[2] > 1 else image[..., 0])
    return image


def _shrunk(image: Image.Image, short: int) -> Image.Image:
    scale = short / min(image.size)
    if scale >= 1:
        return image
    width, height = (round(scale * side) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _key(purpose: str, settings: Mapping[str, Any]) -> str:
    settings = {"purpose": purpose, "version": _VERSION, "pillow": PIL.__version__, **settings}
    return json.dumps(settings, sort_keys=True, default=str)
