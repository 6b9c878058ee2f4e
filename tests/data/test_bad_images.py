from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ftc import InputError
from ftc.data import ArrayReader, ClassFolders, check_images, checks, select
from ftc.data.decode import UnreadableImage, decode_image, fault

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)


def encoded(image: Image.Image, format_: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def pixels(content: bytes, mode: str = "RGB") -> np.ndarray:
    return np.asarray(decode_image(content, mode)).astype(int)


def photo(**options) -> bytes:
    return encoded(Image.fromarray(PIXELS).resize((120, 80)), "JPEG", **options)


def huge() -> bytes:
    """A PNG of 900 million pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


BAD = {
    "empty": (b"", "empty file"),
    "text": (b"no image at all", "no image format that is known"),
    "truncated": (photo()[:-200], "truncated"),
    "truncated, progressive": (photo(progressive=True)[:-200], "truncated"),
    "truncated PNG": (encoded(Image.fromarray(PIXELS))[:-100], "truncated"),
    "bomb": (huge(), "decompression bomb"),
    "floats": (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "unknown range"),
}


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_bad_images_are_named_with_the_reason_and_no_traceback(tmp_path, content, reason):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(
        UnreadableImage, match=rf"bad\.jpg: cannot be read \(.*{reason}.*\); .*on_error=skip"
    ) as e:
        decode_image(path)
    assert "\n" not in str(e.value)
    assert e.value.reason == fault(content)
    assert isinstance(e.value, InputError)


def test_missing_file():
    with pytest.raises(UnreadableImage, match=r"nowhere\.jpg: cannot be read \(No such file or directory\)"):
        decode_image(Path("nowhere.jpg"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 10}])
def test_good_images_have_no_fault_and_pillows_pixels(options):
    content = photo(**options)
    assert fault(content) is None
    assert np.array_equal(pixels(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert np.array_equal(pixels(content, "L"), np.asarray(Image.open(io.BytesIO(content)).convert("L")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Row and column of the upright image's pixel in the stored one, after the EXIF standard.
    rows, columns = np.indices((8, 12) if orientation < 5 else (12, 8))
    up, left = (7, 11)
    row, column = {
        1: (rows, columns),
        2: (rows, left - columns),
        3: (up - rows, left - columns),
        4: (up - rows, columns),
        5: (columns, rows),
        6: (up - columns, rows),
        7: (up - columns, left - rows),
        8: (columns, left - rows),
    }[orientation]
    content = encoded(Image.fromarray(PIXELS), exif=exif)
    assert np.array_equal(pixels(content), PIXELS[row, column])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_damaged_image():
    assert pixels(encoded(Image.fromarray(PIXELS), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")).shape == (
        8,
        12,
        3,
    )


def test_cmyk():
    flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = pixels(encoded(flat, "JPEG", quality=100))
    assert np.abs(red - [255, 0, 0]).max() <= 4
    assert fault(encoded(flat, "JPEG")) is None


@pytest.mark.parametrize(
    "format_",
    ["PNG", "TIFF", "PPM"],
)
def test_16_bits_are_scaled_not_clipped(format_):
    values = np.array([[0, 128, 129, 257, 32896, 65407, 65535]])
    content = encoded(Image.fromarray(values.astype(np.uint16)), format_)
    assert pixels(content, "L").tolist() == [[0, 0, 1, 1, 128, 255, 255]]
    assert pixels(content).shape == (1, 7, 3)


def test_16_bits_with_a_transparent_grey():
    content = encoded(Image.fromarray(np.array([[0, 65535]], np.uint16)), transparency=0)
    assert pixels(content, "L").tolist() == [[0, 255]]


def test_opaque_palette_and_black_and_white():
    palette = Image.fromarray(PIXELS).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(pixels(encoded(palette)), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1")
    assert pixels(encoded(bits), "L").tolist() == [[0, 255, 255]]


def test_transparent_parts_are_white():
    alpha = np.array([[0, 51, 255]], np.uint8)
    grey = np.full((1, 3), 100, np.uint8)
    # 100 · α + 255 · (1 − α)
    expected = [255, 224, 100]
    colour = Image.fromarray(np.dstack([grey, grey, grey, alpha]))
    assert np.abs(pixels(encoded(colour))[0, :, 1] - expected).max() <= 1
    assert np.abs(pixels(encoded(colour.convert("LA")), "L")[0] - expected).max() <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    assert pixels(encoded(palette, transparency=0)).tolist() == [[[255] * 3, [40, 50, 60]]]
    assert pixels(encoded(palette)).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_opaque_alpha_changes_nothing():
    content = encoded(Image.fromarray(PIXELS).convert("RGBA"))
    assert np.array_equal(pixels(content), PIXELS)


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(format_):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
    assert np.abs(pixels(content) - [255, 0, 0]).max() <= 4


@pytest.fixture
def folder(tmp_path):
    """Two classes of four images in ``data``."""
    return write_images(tmp_path / "data", 8)


def write_images(folder, count):
    for i in range(count):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(PIXELS + i)))
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """Every content that a check decodes."""
    contents = []
    monkeypatch.setattr(checks, "fault", lambda content: contents.append(content) or fault(content))
    return contents


def test_bad_files_are_named_or_left_out(folder, tmp_path):
    (folder / "a" / "2.png").write_bytes(b"")
    (folder / "b" / "3.png").write_bytes(b"text")
    readers = {
        "train": ClassFolders(folder),
        "digits": ArrayReader(np.zeros((2, 4, 4), np.uint8), [0, 0], "a"),
    }
    with pytest.raises(
        InputError, match=r"^a/2\.png: empty file; b/3\.png: no image .* \(2 of 8 images"
    ) as e:
        check_images(readers, "error", tmp_path / "cache")
    assert "data.on_error=skip" in str(e.value)
    kept = check_images(readers, "skip", tmp_path / "cache").rows
    assert kept["train"].tolist() == [0, 2, 3, 4, 6, 7]
    assert kept["digits"].tolist() == [0, 1]


def test_files_are_decoded_once_ever(folder, tmp_path, decoded):
    (folder / "a" / "2.png").write_bytes(b"bad")
    readers = {"train": ClassFolders(folder)}
    first = check_images(readers, "skip", tmp_path / "cache").rows
    assert len(decoded) == 8
    again = check_images({"train": ClassFolders(folder)}, "skip", tmp_path / "cache").rows
    assert len(decoded) == 8
    assert torch.equal(first["train"], again["train"])
    (folder / "a" / "2.png").write_bytes(encoded(Image.fromarray(PIXELS)))
    assert check_images(readers, "error", tmp_path / "cache").rows["train"].tolist() == list(range(8))
    assert len(decoded) == 9
    # The same size at another time: looked at again.
    os.utime(folder / "b" / "1.png", ns=(1, 1))
    check_images(readers, "error", tmp_path / "cache")
    assert len(decoded) == 10


def test_verdicts_of_an_interrupted_check_stay(tmp_path, decoded):
    # Verdicts are kept a few dozen at a time.
    folder = write_images(tmp_path / "many", 100)
    reader = ClassFolders(folder)
    whole = reader.encoded

    def interrupted(index):
        if index == 75:
            raise KeyboardInterrupt
        return whole(index)

    reader.encoded = interrupted
    with pytest.raises(KeyboardInterrupt):
        check_images({"train": reader}, "error", tmp_path / "cache")
    assert len(decoded) == 75
    check_images({"train": ClassFolders(folder)}, "error", tmp_path / "cache")
    # Only what was interrupted is done again.
    assert 100 < len(decoded) <= 175 - 50


def test_a_file_out_of_reach_is_not_remembered(folder, tmp_path):
    reader = ClassFolders(folder)
    stamp = reader.stamp(0)
    reader.stamp = lambda i: stamp if i == 0 else ClassFolders.stamp(reader, i)
    (folder / "a" / "0.png").rename(tmp_path / "away.png")
    with pytest.raises(InputError, match=r"a/0\.png: No such file or directory"):
        check_images({"train": reader}, "error", tmp_path / "cache")
    (tmp_path / "away.png").rename(folder / "a" / "0.png")
    assert len(check_images({"train": reader}, "error", tmp_path / "cache").rows["train"]) == 8


def test_checking_in_other_processes(tmp_path):
    folder = write_images(tmp_path / "many", 100)
    (folder / "b" / "3.png").write_bytes(b"")
    reader = ClassFolders(folder)
    kept = check_images({"train": reader}, "skip", tmp_path / "cache", num_workers=2).rows
    assert [reader.name(i) for i in range(100) if i not in kept["train"].tolist()] == ["b/3.png"]


def test_training_and_test_data_must_not_share_a_file(folder, tmp_path):
    reader = ClassFolders(folder)
    readers = {
        "train": select(reader, torch.arange(5)),
        "test": select(reader, torch.arange(3, 8)),
        "pool": reader,
    }
    message = r"^a/6\.png: the same image as a/6\.png of data\.readers\.test; b/1\.png: .*\(2 images"
    with pytest.raises(InputError, match=message):
        check_images(readers, "error", tmp_path / "cache")
    kept = check_images(readers, "skip", tmp_path / "cache").rows
    assert {name: len(rows) for name, rows in kept.items()} == {"train": 3, "test": 5, "pool": 8}
    assert kept["train"].tolist() == [0, 1, 2]


def test_folder_that_is_no_cache(folder, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "index.sqlite").write_text(
        "not a data base, but long enough to be read as one" * 20
    )
    with pytest.raises(InputError, match=r"index\.sqlite: file is not a database; .*cache_dir"):
        check_images({"train": ClassFolders(folder)}, "error", tmp_path / "cache")
