"""Pixels without torch are timm's, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import timm
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from PIL import Image
from timm.data import create_transform

from ftc.data.decode import decode_image
from ftc.export.pixels import opened, resized

SIDES = st.integers(12, 70)


@settings(max_examples=150)
@given(
    size=st.tuples(SIDES, SIDES),
    given_size=st.tuples(SIDES, SIDES),
    square=st.booleans(),
    channels=st.sampled_from([1, 3]),
    interpolation=st.sampled_from(["bilinear", "bicubic", "nearest", "lanczos"]),
    crop_pct=st.sampled_from([1.0, 0.875, 0.95, 0.7, 1.2]),
    crop_mode=st.sampled_from(["center", "squash", "border"]),
)
def test_every_preprocessing_gives_timms_pixels(
    size, given_size, square, channels, interpolation, crop_pct, crop_mode
):
    height, width = (size[0], size[0]) if square else size
    if not square and Version(timm.__version__) < Version("1.0.31"):
        interpolation = "bilinear"  # which older versions take, whatever is asked for
    config = {
        "input_size": (channels, height, width),
        "interpolation": interpolation,
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
        "mean": (0.5, 0.3, 0.2)[:channels],
        "std": (0.2, 0.3, 0.4)[:channels],
    }
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (*given_size, 3)[: 3 if channels == 3 else 2], dtype=np.uint8)
    expected = Image.fromarray(pixels)
    for step in create_transform(**config, is_training=False).transforms[:-2]:
        expected = step(expected)
    found = resized(Image.fromarray(pixels), **config)
    assert found.shape == (height, width, channels)
    assert np.array_equal(found, np.asarray(expected).reshape(found.shape))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "1", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_files_are_opened_as_ftc_decodes_them(tmp_path, mode, orientation):
    generator = np.random.default_rng(1)
    image = Image.fromarray(generator.integers(0, 256, (20, 30, 4), dtype=np.uint8), "RGBA").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path, exif=exif)
    for wanted in ("RGB", "L"):
        assert np.array_equal(np.asarray(opened(str(path), wanted)), np.asarray(decode_image(path, wanted)))
