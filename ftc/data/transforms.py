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

from ftc.data.batch_transforms import Batched, apply, batched
from ftc.errors import InputError

# Increase this whenever the pixels stored of an image change.
_VERSION = 1

# Stored training images are larger than the model's input, so that random crops lose little to resampling.
_MARGIN = 8 / 7

# Transforms that treat tensors as they treat images, but faster.
_ON_TENSORS = (
    *(transforms.CenterCrop, transforms.RandomCrop, transforms.RandomResizedCrop, transforms.Resize),
    *(transforms.RandomHorizontalFlip, transforms.RandomVerticalFlip),
    *(v2.CenterCrop, v2.RandomCrop, v2.RandomResizedCrop, v2.Resize),
    *(v2.RandomHorizontalFlip, v2.RandomVerticalFlip),
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
    """The preprocessing of images for a model: `evaluation`, `train`, and the steps of both.

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
        *resize, _, normalise = evaluation.transforms
        self._resize = transforms.Compose(resize)
        self._augmentation = transforms.Compose(list(augmentation))
        self._mean = torch.as_tensor(normalise.mean).reshape(-1, 1, 1)
        self._std = torch.as_tensor(normalise.std).reshape(-1, 1, 1)
        self._config = dict(data_config)
        # Augmentations at the end of the list that exist for batches run after the resizing, where images are
        # of one size. They need no resampling, so the resizing may come first.
        self._on_batches: list[Batched] = []
        single = list(augmentation)
        while single and (step := batched(single[-1])) is not None:
            self._on_batches.insert(0, step)
            single.pop()
        self._on_images = [*single, *resize]
        self._takes_tensors = all(isinstance(step, _ON_TENSORS) for step in self._on_images)

    def evaluation(self, image: Image.Image) -> Tensor:
        """timm's evaluation transform: float32 (channels, H, W)."""
        return self.normalise(self.resized(image))

    def train(self, image: Image.Image) -> Tensor:
        """Augmentation and evaluation transform: float32 (channels, H, W)."""
        return self.normalise(self.augmented(image))

    def resized(self, image: Image.Image) -> Tensor:
        """The image of `evaluation` before it is normalised: uint8 (channels, H, W)."""
        return _to_tensor(self._resize(image))

    def augmented(self, image: Image.Image) -> Tensor:
        """The image of `train` before it is normalised: uint8 (channels, H, W), drawn anew by each call."""
        return self.resized(self._augmentation(image))

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise uint8 images (…, channels, H, W) to float32 of the same shape.

        Raises:
            InputError: the model takes another number of channels.
        """
        if images.shape[-3] != len(self._mean):
            raise InputError(
                f"images have {images.shape[-3]} channels, the model takes {len(self._mean)}; "
                "set the mode of the reader or in_chans of the model"
            )
        if images.device.type != "cpu":
            mean, std = self._mean.to(images.device), self._std.to(images.device)
            return images.float().div_(255).sub_(mean).div_(std)
        # Several times faster on the CPU: NumPy asks for huge pages, and a single image stays in the cache.
        values = torch.from_numpy(np.empty(images.shape, np.float32))
        one_by_one = (-1, *images.shape[-3:])
        for image, value in zip(images.reshape(one_by_one), values.view(one_by_one), strict=True):
            torch.div(image, 255, out=value).sub_(self._mean).div_(self._std)
        return values

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

    def from_stored(self, pixels: np.ndarray) -> Tensor:
        """A tensor (channels, H, W) of pixels (H, W, channels) kept as `stored`; both are uint8."""
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def cropped(self, pixels: np.ndarray) -> Tensor:
        """Apply the augmentations that take one image, and the resizing: uint8 (channels, H, W).

        Args:
            pixels: uint8 (H, W, channels), kept as `stored_for_training`.
        """
        image: Any = torch.from_numpy(pixels).permute(2, 0, 1)
        if not self._takes_tensors:
            image = Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[..., 0])
        for step in self._on_images:
            image = step(image)
        return _to_tensor(image)

    def jittered(self, images: Tensor) -> Tensor:
        """Apply the augmentations of batches to uint8 (N, channels, H, W); each image draws its own."""
        return apply(self._on_batches, images)

    def augmented_stored(self, pixels: np.ndarray) -> Tensor:
        """Apply `cropped` and `jittered` to the pixels of one image: uint8 (channels, H, W)."""
        return self.jittered(self.cropped(pixels)[None])[0]


def _to_tensor(image: Image.Image | Tensor) -> Tensor:
    return image if isinstance(image, Tensor) else v2.functional.pil_to_tensor(image)


def _shrunk(image: Image.Image, short: int) -> Image.Image:
    scale = short / min(image.size)
    if scale >= 1:
        return image
    width, height = (round(scale * side) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _key(purpose: str, settings: Mapping[str, Any]) -> str:
    settings = {"purpose": purpose, "version": _VERSION, "pillow": PIL.__version__, **settings}
    return json.dumps(settings, sort_keys=True, default=str)
