"""Augmentations that need no resampling, on batches on any device: every sample draws its own.

Each is the torchvision transform of its name in floating point, and agrees with it up to rounding to 8 bits.
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

# ITU-R 601-2 luma, as torchvision and Pillow have it.
_LUMA = (0.2989, 0.587, 0.114)

# Hues of cyan, green and blue in sixths of the circle.
_CENTRES = [[[3.0]], [[2.0]], [[4.0]]]


class Batched(ABC):
    """An augmentation of images (N, channels, H, W), float32 from 0 to 255."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor: ...


@frozen
class HorizontalFlip(Batched):
    """Mirrors with probability ``p``."""

    p: float

    def __call__(self, images: Tensor) -> Tensor:
        return _some(images, self.p, lambda chosen: chosen.flip(-1))


@frozen
class Grayscale(Batched):
    """Takes the colour away with probability ``p``."""

    p: float

    def __call__(self, images: Tensor) -> Tensor:
        return _some(images, self.p, lambda chosen: grey(chosen).repeat(1, chosen.shape[1], 1, 1))


@frozen
class ColorJitter(Batched):
    """Changes brightness, contrast, saturation and hue by factors drawn from ranges.

    The order of the four is drawn once a call.

    Attributes:
        brightness, contrast, saturation: ranges of factors, None for no change.
        hue: range of turns, inside [−0.5, 0.5], None for no change.
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
    """What does to batches as a torchvision transform does to an image; None where there is no such thing."""
    if isinstance(transform, v2.RandomHorizontalFlip | transforms.RandomHorizontalFlip):
        return HorizontalFlip(transform.p)
    if isinstance(transform, v2.RandomGrayscale | transforms.RandomGrayscale):
        return Grayscale(transform.p)
    if isinstance(transform, v2.ColorJitter | transforms.ColorJitter):
        return ColorJitter(transform.brightness, transform.contrast, transform.saturation, transform.hue)
    return None


def apply(steps: Sequence[Batched], images: Tensor) -> Tensor:
    """Augment uint8 (N, channels, H, W)."""
    if not steps:
        return images
    values = images.contiguous().float()
    for step in steps:
        values = step(values)
    # Straight to uint8 torch takes three times as long.
    return values.round_().to(torch.int32).to(torch.uint8)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scaled values, in place; ``factor`` (N, 1, 1, 1)."""
    return images.mul_(factor).clamp_(0, 255)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Values further from the mean grey, or nearer, in place; ``factor`` (N, 1, 1, 1)."""
    return _blend(images, grey(images.mean((2, 3), keepdim=True)), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Colours further from their grey, or nearer, in place; ``factor`` (N, 1, 1, 1)."""
    return images if images.shape[1] == 1 else _blend(images, grey(images), factor)


def adjust_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Colours turned around the HSV circle, in place; ``turn`` (N, 1, 1, 1) in [−0.5, 0.5]."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    low = images.amin(1, keepdim=True)
    chroma = images.amax(1, keepdim=True).sub_(low)
    # Hue in sixths of the circle, −3 to 3. One channel is high and one low, so that the sum below runs
    # linearly from 0 at red to 3 at cyan: no case distinctions, which are ten times slower.
    hue = (green + blue).sub_(red).sub_(low).div_(chroma.clamp(min=1e-4)).add_(1)
    hue.copysign_(green - blue).add_(6 * turn)
    hue.sub_(hue.div(6).floor_(), alpha=6)
    # A channel turns from low to high between one and two sixths: red away from cyan, green and blue towards
    # themselves.
    distance = (hue - images.new_tensor(_CENTRES)).abs_().clamp_(1, 2)
    torch.addcmul(low - chroma, chroma, distance[:, :1], out=red)
    torch.addcmul(low.add_(chroma, alpha=2), chroma, distance[:, 1:], value=-1, out=images[:, 1:])
    return images


def grey(images: Tensor) -> Tensor:
    """Luma (N, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return images.mul_(factor).add_(other.mul_(1 - factor)).clamp_(0, 255)


def _some(images: Tensor, p: float, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Every image changed with probability p."""
    rows = (torch.rand(len(images)) < p).nonzero()[:, 0]
    if len(rows) == len(images):
        return change(images)
    if len(rows):
        rows = rows.to(images.device)
        images[rows] = change(images[rows])
    return images
