"""Augmentations of batches, and their normalisation, on any device; every image draws its own parameters.

Each computes the torchvision transform of the same name in floating point, and agrees with it up to rounding
to 8 bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision import transforms
from torchvision.transforms import v2

from ftc.data.randomness import Draws

Range = tuple[float, float] | None

# As many values as stay in a core's cache from one operation to the next.
_VALUES_AT_A_TIME = 2**18

# Weights of ITU-R 601-2 luma, as in torchvision and Pillow.
_LUMA = (0.2989, 0.587, 0.114)

# Hues of cyan, green and blue in sixths of the circle.
_CENTRES = torch.tensor([[[3.0]], [[2.0]], [[4.0]]])


class Batched(ABC):
    """An augmentation of images (N, channels, H, W), float32 from 0 to 255.

    Attributes:
        resamples: whether pixels move by fractions: resizing before or after it is not the same.
    """

    resamples: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, images: Tensor, draws: Draws) -> Tensor: ...


@frozen
class HorizontalFlip(Batched):
    """Mirrors each image with probability ``p``."""

    p: float

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        return _some(images, self.p, draws, lambda chosen: chosen.flip(-1))


@frozen
class Grayscale(Batched):
    """Makes each image grey with probability ``p``."""

    p: float

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        return _some(images, self.p, draws, lambda chosen: grey(chosen).repeat(1, chosen.shape[1], 1, 1))


@frozen
class Affine(Batched):
    """Turns, moves, scales and shears each image about its centre; pixels from outside are 0.

    Attributes:
        degrees: range of the angle.
        translate: largest shifts, as shares of width and height; None for no shift. Shifts are whole pixels.
        scale: range of the factor; None for 1.
        shear: ranges of the angles along x and y (degrees): two numbers or four; None for 0.
    """

    resamples = True

    degrees: tuple[float, float]
    translate: tuple[float, float] | None
    scale: tuple[float, float] | None
    shear: tuple[float, ...] | None

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[-2:]
        still = torch.zeros(len(images))
        angle = draws.uniform(*self.degrees)
        shift_x, shift_y = still, still
        if self.translate is not None:
            most_x, most_y = self.translate[0] * width, self.translate[1] * height
            shift_x, shift_y = (draws.uniform(-most, most).round() for most in (most_x, most_y))
        scale = still + 1 if self.scale is None else draws.uniform(*self.scale)
        shear = self.shear or ()
        shear_x = draws.uniform(*shear[:2]) if len(shear) >= 2 else still
        shear_y = draws.uniform(*shear[2:]) if len(shear) == 4 else still
        return affine(images, angle, (shift_x, shift_y), scale, (shear_x, shear_y))


@frozen
class ColorJitter(Batched):
    """Changes brightness, contrast, saturation and hue by amounts drawn from ranges.

    The order of the four is drawn once per batch.

    Attributes:
        brightness, contrast, saturation: ranges of factors; None for no change.
        hue: range inside [−0.5, 0.5], in turns of the circle; None for no change.
    """

    brightness: Range
    contrast: Range
    saturation: Range
    hue: Range

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        steps: tuple[tuple[Callable[[Tensor, Tensor], Tensor], Range], ...] = (
            (adjust_brightness, self.brightness),
            (adjust_contrast, self.contrast),
            (adjust_saturation, self.saturation),
            (adjust_hue, self.hue),
        )
        for k in draws.order(len(steps)):
            adjust, between = steps[k]
            if between is not None:
                amount = draws.uniform(*between).reshape(-1, 1, 1, 1)
                images = adjust(images, _beside(images, amount))
        return images


def batched(transform: Callable[[Any], Any]) -> Batched | None:
    """The augmentation of batches that equals a torchvision transform of an image; None where none does."""
    if isinstance(transform, v2.RandomHorizontalFlip | transforms.RandomHorizontalFlip):
        return HorizontalFlip(transform.p)
    if isinstance(transform, v2.RandomGrayscale | transforms.RandomGrayscale):
        return Grayscale(transform.p)
    if isinstance(transform, v2.ColorJitter | transforms.ColorJitter):
        return ColorJitter(transform.brightness, transform.contrast, transform.saturation, transform.hue)
    if isinstance(transform, v2.RandomAffine | transforms.RandomAffine):
        # The mode is an enumeration in some versions and a text in others.
        mode = getattr(transform.interpolation, "value", transform.interpolation)
        if mode == "nearest" and transform.center is None and transform.fill in (None, 0):
            return Affine(transform.degrees, transform.translate, transform.scale, transform.shear)
    return None


def apply(steps: Sequence[Batched], images: Tensor, draws: Draws) -> Tensor:
    """Apply augmentations, in order, to images (N, channels, H, W), uint8; each image draws its own."""
    if not steps or not len(images):
        return images
    augmented = []
    for rows in torch.arange(len(images)).split(_images_at_a_time(images)):
        values, own = images[rows[0] : rows[-1] + 1].contiguous().float(), draws.of(rows.tolist())
        for step in steps:
            values = step(values, own)
        # A direct conversion to uint8 takes torch three times as long.
        augmented.append(values.round_().to(torch.int32).to(torch.uint8))
    return torch.cat(augmented)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Divide images (N, channels, H, W), uint8, by 255, and normalise them: float32 of the same shape."""
    if images.device.type != "cpu":
        return images.float().div_(255).sub_(_beside(images, mean)).div_(_beside(images, std))
    # NumPy asks for huge pages, which makes this several times faster.
    values = torch.from_numpy(np.empty(images.shape, np.float32))
    size = _images_at_a_time(images)
    for some, value in zip(images.split(size), values.split(size), strict=True):
        torch.div(some, 255, out=value).sub_(mean).div_(std)
    return values


def _images_at_a_time(images: Tensor) -> int:
    if images.device.type != "cpu":
        return len(images)
    return max(1, _VALUES_AT_A_TIME // max(1, images[0].numel()))


def affine(
    images: Tensor,
    angle: Tensor,
    shift: tuple[Tensor, Tensor],
    scale: Tensor,
    shear: tuple[Tensor, Tensor],
) -> Tensor:
    """Turn, shear, scale and move images (N, channels, H, W) about their centres, to the nearest pixel.

    Args:
        images: float32; pixels from outside are 0.
        angle: clockwise, degrees (N,).
        shift: along x and y, pixels (N,) each.
        scale: factors (N,).
        shear: angles along x and y, degrees (N,) each.
    """
    height, width = images.shape[-2:]
    turn, shear_x, shear_y = (value.deg2rad() for value in (angle, *shear))
    # The forward map is turn · shear · scale; its inverse says where an output pixel comes from.
    a, c = ((turn - shear_y).cos() / shear_y.cos(), (turn - shear_y).sin() / shear_y.cos())
    b, d = -a * shear_x.tan() - turn.sin(), -c * shear_x.tan() + turn.cos()
    rows = ((d / scale, -b / scale), (-c / scale, a / scale))
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    grid = []
    for (along_x, along_y), half in zip(rows, (width / 2, height / 2), strict=True):
        origin = -along_x * shift[0] - along_y * shift[1]
        along_x, along_y, origin = (
            _beside(images, value / half)[:, None, None] for value in (along_x, along_y, origin)
        )
        grid.append(along_x * x + along_y * y + origin)
    return grid_sample(images, torch.stack(grid, dim=-1), "nearest", "zeros", align_corners=False)


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
    distance = (hue - _beside(images, _CENTRES)).abs_().clamp_(1, 2)
    torch.addcmul(low - chroma, chroma, distance[:, :1], out=red)
    torch.addcmul(low.add_(chroma, alpha=2), chroma, distance[:, 1:], value=-1, out=images[:, 1:])
    return images


def grey(images: Tensor) -> Tensor:
    """The luma (N, 1, H, W) of images (N, channels, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _beside(images: Tensor, values: Tensor) -> Tensor:
    """Values on the images' device, for which the host does not wait."""
    return values.to(images.device, non_blocking=True)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return images.mul_(factor).add_(other.mul_(1 - factor)).clamp_(0, 255)


def _some(images: Tensor, p: float, draws: Draws, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change every image with probability p."""
    rows = (draws.uniform(0, 1) < p).nonzero()[:, 0]
    if len(rows) == len(images):
        return change(images)
    if len(rows):
        rows = _beside(images, rows)
        images[rows] = change(images[rows])
    return images
