"""The decoding of image files of any kind to 8-bit pixels."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ftc.errors import InputError
from ftc.files import printable

# Formats whose integers have 16 bits at most, even where Pillow gives them 32.
_SIXTEEN_BITS = ("PNG", "PPM")

# The transposition that turns an image upright, by its EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(InputError):
    """An image that cannot be decoded.

    Attributes:
        reason: why it cannot be decoded, in a few words.
    """

    reason = ""

    @classmethod
    def because(cls, name: str, reason: str) -> UnreadableImage:
        """The error for a sample of that name."""
        error = cls(
            f"{printable(name)}: cannot be read ({reason}); mend the image, or set data.on_error=skip"
        )
        error.reason = reason
        return error


def decode_image(source: Path | bytes, mode: str = "RGB") -> Image.Image:
    """Decode an image as it is meant to be viewed, in 8 bits.

    The result is the first frame of an animation, turned as its EXIF orientation says. Transparent parts are
    white, and 16 bits are scaled to 8 rather than clipped. Opaque 8-bit images have the pixels of Pillow's
    ``convert``.

    Args:
        source: a file, or the content of one.
        mode: Pillow's mode of the result, ``RGB`` or ``L``.

    Raises:
        UnreadableImage: the file is not there, is no image, is incomplete, or has floating-point or 32-bit
            pixels.
    """
    with _opened(source) as image:
        turn = _TURNS.get(_orientation(image))
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers of unknown range")
        if image.mode == "I" and image.format not in _SIXTEEN_BITS:
            raise ValueError("its pixels are 32-bit integers of unknown range")
        if image.mode.startswith("I"):
            image = _eight_bits(image)
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        image = image.convert(mode)
        return image if turn is None else image.transpose(turn)


def status(path: Path) -> os.stat_result:
    """The status of a regular file, links followed; nothing else may be opened, since a pipe never ends.

    Raises:
        OSError: no file that can be looked at, or a folder, a pipe, a socket or a device.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return found


@cache
def image_suffixes() -> frozenset[str]:
    """The ends of names of files that Pillow, with the plug-ins that are installed, reads as images."""
    Image.init()
    return frozenset(
        suffix
        for suffix, kind in Image.registered_extensions().items()
        # Plug-ins that only recognise a format name no image type.
        if kind in Image.OPEN and Image.MIME.get(kind, "").startswith("image/")
    )


def fault(content: bytes) -> str | None:
    """The reason why an encoded image cannot be decoded, None if it can; all of the content is read."""
    try:
        with _opened(content) as image:
            if image.format != "JPEG":
                decode_image(content)
            else:
                # At an eighth of the size every code word is read, but few pixels are computed.
                image.draft(None, (1, 1))
                image.load()
    except UnreadableImage as error:
        return error.reason
    return None


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    name = "image" if isinstance(source, bytes) else str(source)
    size = 0
    try:
        size = len(source) if isinstance(source, bytes) else status(source).st_size
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            yield image
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        reason = "no image format that is known" if size else "empty file"
        raise UnreadableImage.because(name, reason) from error
    except Exception as error:  # on damaged data Pillow's plug-ins raise almost anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage.because(name, reason) from error


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata do not make the image unreadable
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale a 16-bit grey image, 0 to 65,535, to 8 bits, 0 to 255."""
    pixels = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
