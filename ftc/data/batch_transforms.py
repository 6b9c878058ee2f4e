"""Augmentations without resampling, for batches on any device; every image draws its own parameters.

Each computes the torchvision transform of the same name in floating point, and agrees with it up to rounding
to 8 bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2

Range = tuple[float, float] | None

# Weights of ITU-R 601-2 luma, as in torchvision and Pillow.
_LUMA = (0.2989, 0.587, 0.114)

# Hues of cyan, green and blue in sixths of the circle.
_CENTRES = [[[3.0]], [[2.0]], [[4.0]]]


class Batched(ABC):
    """An augmentation of images (N, channels, H, W), float32 from 0 to 255."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor: ...


@frozen
class HorizontalFlip(Batched):
    """Mirrors each image with probability ``p``."""

    p: float

    def __call__(self, images: Tensor) -> Tensor:
        return _some(images, self.p, lambda chosen: chosen.flip(-1))


@frozen
class Grayscale(Batched):
    """Makes each image grey with probability ``p``."""

    p: float

    def __call__(self, images: Tensor) -> Tensor:
        return _some(images, self.p, lambda chosen: grey(chosen).repeat(1, chosen.shape[1], 1, 1))


@frozen
class ColorJitter(Batched):
    """Changes brightness, contrast, saturation and hue by amounts drawn from ranges.

    The order of the four is drawn once per call.

    Attributes:
        brightness, contrast, saturation: ranges of factors; None for no change.
        hue: range inside [−0.5, 0.5], in turns of the circle; None for no change.
    """

    brightness: Range
    contrast: Range
    saturation: Range
    hue: Range

    def __call__(self, images: Tensor) -> Tensor:
        steps: tuple[tuple[Callable[[Tensor, Tensor], Tensor], Range], ...] = (
            (adjust_brightness, self.brightness),
            (adjust_contrast, self.contrast),
            (adjust_saturation, self.saturation),
            (adjust_hue, self.hue),
        )
        for k in torch.randperm(len(steps)).tolist():
            adjust, between = steps[k]
            if between is not None:
                amount = torch.empty(len(images), 1, 1, 1).uniform_(*between)
                images = adjust(images, amount.to(images.device))
        return images


def batched(transform: Callable[[Any], Any]) -> Batched | None:
    """The augmentation of batches that equals a torchvision transform of an image; None where none does."""
    if isinstance(transform, v2.RandomHorizontalFlip | transforms.RandomHorizontalFlip):
        return HorizontalFlip(transform.p)
    if isinstance(transform, v2.RandomGrayscale | transforms.RandomGrayscale):
        return Grayscale(transform.p)
    if isinstance(transform, v2.ColorJitter | transforms.ColorJitter):
        return ColorJitter(transform.brightness, transform.contrast, transform.saturation, transform.hue)
    return None


def apply(steps: Sequence[Batched], images: Tensor) -> Tensor:
    """Apply augmentations, in order, to images (N, channels, H, W), uint8."""
    if not steps:
        return images
    values = images.contiguous().float()
    for step in steps:
        values = step(values)
    # A direct conversion to uint8 takes torch three times as long.
    return values.round_().to(torch.int32).to(torch.uint8)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply the values by ``factor`` (N, 1, 1, 1), in place."""
    return images.mul_(factor).clamp_(0, 255)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the values' distance from the image's mean grey by ``factor`` (N, 1, 1, 1), in place."""
    return _blend(images, grey(images.mean((2, 3), keepdim=True)), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the colours' distance from their own grey by ``factor`` (N, 1, 1, 1), in place."""
    return images if images.shape[1] == 1 else _blend(images, grey(images), factor)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the colours around the HSV circle by ``turn`` (N, 1, 1, 1) in [−0.5, 0.5], in place."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    low = images.amin(1, keepdim=True)
    chroma = images.amax(1, keepdim=True).sub_(low)
    # The hue in sixths of the circle, −3 to 3. One channel is the highest and one the lowest, so the sum
    # below rises linearly from 0 at red to 3 at cyan. Case distinctions would be ten times slower.
    hue = (green + blue).sub_(red).sub_(low).div_(chroma.clamp(min=1e-4)).add_(1)
    hue.copysign_(green - blue).add_(6 * turn)
    hue.sub_(hue.div(6).floor_(), alpha=6)
    # Red rises from low to high between one and two sixths away from cyan; green and blue fall from high to
    # low between one and two sixths away from their own hue.
    distance = (hue - images.new_tensor(_CENTRES)).abs_().clamp_(1, 2)
    torch.addcmul(low - chroma, chroma, distance[:, :1], out=red)
    torch.addcmul(low.add_(chroma, alpha=2), chroma, distance[:, 1:], value=-1, out=images[:, 1:])
    return images


def grey(images: Tensor) -> Tensor:
    """The luma (N, 1, H, W) of images (N, channels, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return images.mul_(factor).add_(other.mul_(1 - factor)).clamp_(0, 255)


def _some(images: Tensor, p: float, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change every image with probability p."""
    rows = (torch.rand(len(images)) < p).nonzero()[:, 0]
    if len(rows) == len(images):
        return change(images)
    if len(rows):
        rows = rows.to(images.device)
        images[rows] = change(images[rows])
    return images
