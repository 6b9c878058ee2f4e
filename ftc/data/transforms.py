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

# Raised whenever the same image is to be stored with other pixels.
_VERSION = 1

# Stored training images are larger than what the model sees, so that random crops lose little to resampling.
_MARGIN = 8 / 7

# These crop and resize tensors as they do images, but faster.
_ON_TENSORS = (
    *(transforms.CenterCrop, transforms.RandomCrop, transforms.RandomResizedCrop, transforms.Resize),
    *(transforms.RandomHorizontalFlip, transforms.RandomVerticalFlip),
    *(v2.CenterCrop, v2.RandomCrop, v2.RandomResizedCrop, v2.Resize),
    *(v2.RandomHorizontalFlip, v2.RandomVerticalFlip),
)


@frozen
class Form:
    """What is kept of an image in a cache.

    Attributes:
        key: everything that the pixels depend on, besides the image.
        resize: image → image.
    """

    key: str
    resize: Callable[[Image.Image], Image.Image]


class Preprocessing:
    """From images to what a model takes: `evaluation` and `train`, and the steps that they consist of.

    Geometry and colours are uint8 until `normalise`, which takes batches and runs where the batch lies.

    Args:
        data_config: a timm model's data configuration; `timm.data.create_transform` makes the evaluation
            transform from it, so that whoever deploys the model with timm gets the same pixels.
        augmentation: image → image, applied in training only, before the evaluation transform.
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
        # The last augmentations that exist for batches run after the resizing, where images are of one size:
        # what changes pixels one by one may as well.
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
        """What evaluation sees of an image: uint8 (channels, H, W)."""
        return _to_tensor(self._resize(image))

    def augmented(self, image: Image.Image) -> Tensor:
        """What training sees of an image this time: uint8 (channels, H, W)."""
        return self.resized(self._augmentation(image))

    def normalise(self, images: Tensor) -> Tensor:
        """float32 of the same shape from uint8 (…, channels, H, W).

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
        # Several times faster: NumPy asks for huge pages, and a single image stays in the processor's cache.
        values = torch.from_numpy(np.empty(images.shape, np.float32))
        one_by_one = (-1, *images.shape[-3:])
        for image, value in zip(images.reshape(one_by_one), values.view(one_by_one), strict=True):
            torch.div(image, 255, out=value).sub_(self._mean).div_(self._std)
        return values

    @cached_property
    def stored(self) -> Form:
        """What a cache keeps for evaluation: the resized image, so that evaluating it is exact."""
        return Form(_key("evaluation", {**self._config, "timm": timm.__version__}), self._resize)

    @cached_property
    def stored_for_training(self) -> Form:
        """What a cache keeps for training: the whole image, in its own proportions.

        Its shorter side has 8/7 of the model's longer one, or fewer pixels where the image has.
        """
        short = math.ceil(_MARGIN * max(self._config["input_size"][1:]))
        return Form(_key("training", {"short": short}), partial(_shrunk, short=short))

    def from_stored(self, pixels: np.ndarray) -> Tensor:
        """uint8 (channels, H, W) from pixels (H, W, channels) kept as `stored`."""
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def cropped(self, pixels: np.ndarray) -> Tensor:
        """The augmentations that take one image at a time: uint8 (channels, H, W).

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
        """The augmentations that take batches, on uint8 (N, channels, H, W); every image draws its own."""
        return apply(self._on_batches, images)

    def augmented_stored(self, pixels: np.ndarray) -> Tensor:
        """`cropped` and `jittered`: uint8 (channels, H, W)."""
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
