"""From an image file to a model's pixels, with Pillow and NumPy alone (no torch).

The functions' source is part of model cards, so that each stands on its own.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageOps


def opened(path: str, mode: str) -> Image.Image:
    """The image of a file as it is meant to be viewed: upright, transparent parts white."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert(mode)


def resized(
    image: Image.Image,
    input_size: list[int],
    interpolation: str,
    crop_pct: float,
    crop_mode: str,
    mean: list[float],
    std: list[float],
) -> np.ndarray:
    """The pixels of an image, resized and cropped as timm does: uint8 (H, W, channels)."""
    height, width = input_size[1:]
    tall, wide = math.floor(height / crop_pct), math.floor(width / crop_pct)
    ratios = (image.height / tall, image.width / wide)
    fill = [0] * len(mean)
    if crop_mode == "squash":
        size = (wide, tall)
    elif crop_mode == "border":
        size = (round(image.width / max(ratios)), round(image.height / max(ratios)))
        fill = [round(255 * value) for value in mean]
    elif tall == wide:
        size = (int(tall * image.width / min(image.size)), int(tall * image.height / min(image.size)))
    else:
        size = (round(image.width / min(ratios)), round(image.height / min(ratios)))
    image = image.resize(size, getattr(Image.Resampling, interpolation.upper()))
    # Pillow's crop would fill with black what lies outside.
    framed = (max(width, image.width), max(height, image.height))
    if framed != image.size:
        frame = Image.new(image.mode, framed, tuple(fill))
        frame.paste(image, ((framed[0] - image.width) // 2, (framed[1] - image.height) // 2))
        image = frame
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)))
    return pixels.reshape(height, width, -1)
