"""A file that cannot be looked at is a bad image like any other: named, or left out and counted."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from ftc import InputError
from ftc.data import (
    ClassFolders,
    HubDataset,
    ImageCache,
    ListFile,
    Preprocessing,
    UnlabelledFolder,
    check_images,
    checks,
)
from ftc.data.decode import UnreadableImage, decode_image, fault
from ftc.data.folders import FileReader
from ftc.data.readers import sample_name

CONFIG = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
FORM = Preprocessing(CONFIG).stored


def image(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (value, 0, 0)).save(path, "PNG")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of two images."""
    for number, name in enumerate(("a/0.png", "a/1.png", "b/2.png", "b/3.png")):
        image(tmp_path / "images" / name, number)
    return tmp_path / "images"


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


# What lies there under the name of an image → why it cannot be read.
KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "dangling link": (link("gone.png"), "No such file or directory"),
    "loop of links": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "link below a file": (link("0.png/x.png"), "Not a directory"),
    "link of a long name": (link("x" * 300), "File name too long"),
    "link to a folder": (link("../b"), "no regular file"),
    "pipe": (os.mkfifo, "no regular file"),
    "socket": (lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), "no regular file"),
    "device": (link("/dev/zero"), "no regular file"),
}

# The readers of files, each of which has a file below ``a`` as a sample.
READERS: dict[str, Callable[[Path], FileReader]] = {
    "folders": ClassFolders,
    "list": lambda root: ListFile(root.parent / "list.txt", root),
    "pool": UnlabelledFolder,
}


@pytest.mark.parametrize(
    ("kind", "reader"),
    # Only a list can name a folder as an image: the others enter it.
    [
        (kind, reader)
        for kind in KINDS
        for reader in READERS
        if kind != "link to a folder" or reader == "list"
    ],
)
def test_it_is_named_or_left_out_and_looked_at_again(folder, tmp_path, kind, reader):
    make, reason = KINDS[kind]
    bad = folder / "a" / "bad.png"
    make(bad)
    files = ["a/0.png", "a/1.png", "a/bad.png", "b/2.png", "b/3.png"]
    (tmp_path / "list.txt").write_text("".join(f"{file} {'ab'.index(file[0])}\n" for file in files))
    data = {"train": READERS[reader](folder)}
    assert list(data["train"].files) == files
    with pytest.raises(InputError, match=rf"^a/bad\.png: {reason} \(1 of 5 images .*on_error=skip$"):
        check_images(data, "error", tmp_path / "cache")
    assert check_images(data, "skip", tmp_path / "cache").rows["train"].tolist() == [0, 1, 3, 4]
    for use in (lambda: ImageCache(tmp_path / "cache").store(data["train"], FORM), lambda: decode_image(bad)):
        with pytest.raises(UnreadableImage, match=rf"a/bad\.png: cannot be read \({reason}\)"):
            use()
    bad.unlink()
    image(bad)
    assert (
        len(check_images({"train": READERS[reader](folder)}, "error", tmp_path / "cache").rows["train"]) == 5
    )


def test_a_file_that_vanishes_or_is_locked_after_it_was_listed(folder, tmp_path, monkeypatch):
    reader = ClassFolders(folder)
    (folder / "a" / "0.png").unlink()
    read = Path.read_bytes

    def locked(path: Path) -> bytes:
        if path.name == "3.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", locked)
    message = r"^a/0\.png: No such file or directory; b/3\.png: Permission denied \(2 of 4 images"
    with pytest.raises(InputError, match=message):
        check_images({"train": reader}, "error", tmp_path / "cache")
    assert check_images({"train": reader}, "skip", tmp_path / "cache").rows["train"].tolist() == [1, 2]


def test_a_file_of_several_readers_counts_once(folder, tmp_path):
    os.mkfifo(folder / "a" / "pipe.png")
    readers = {
        "train": ClassFolders(folder),
        "pool": UnlabelledFolder(folder),
        "source": ClassFolders(folder),
    }
    with pytest.raises(InputError, match=r"^a/pipe\.png: no regular file \(1 of 5 images"):
        check_images(readers, "error", tmp_path / "cache")
    rows = check_images(readers, "skip", tmp_path / "cache").rows
    assert {name: len(kept) for name, kept in rows.items()} == dict.fromkeys(readers, 4)


def test_a_row_of_a_table_without_an_image(folder, tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a"]))
    good = {"bytes": (folder / "a" / "0.png").read_bytes(), "path": None}
    rows = {"image": [good, None, None], "label": [0, 0, 0]}
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "hub" / "train.parquet")
    reader = HubDataset(str(tmp_path / "hub"), "train")
    message = r"^row 1 of .*: no image in this row; row 2 of .*: no image in this row \(2 of 3 images"
    with pytest.raises(InputError, match=message):
        check_images({"train": reader}, "error", tmp_path / "cache")
    assert check_images({"train": reader}, "skip", tmp_path / "cache").rows["train"].tolist() == [0]


def test_the_same_name_in_two_readers_counts_twice(folder, tmp_path):
    image(tmp_path / "other" / "a" / "0.png", 9).write_bytes(b"")
    (folder / "a" / "0.png").write_bytes(b"")
    readers = {"train": ClassFolders(folder), "test": ClassFolders(tmp_path / "other")}
    with pytest.raises(InputError, match=r"^a/0\.png: empty file \(2 of 5 images"):
        check_images(readers, "error", tmp_path / "cache")


@pytest.mark.parametrize("target", ["gone", "c"], ids=["nowhere", "loop"])
def test_a_class_whose_folder_is_a_link_to_nowhere(folder, target):
    (folder / "c").symlink_to(target)
    with pytest.raises(InputError, match=r"^c: (No such|Too many) .* \(1 of 2 class folders in"):
        ClassFolders(folder)
    reader = ClassFolders(folder, on_error="skip")
    assert reader.class_names == ("a", "b") and list(reader.skipped) == ["c"]
    assert ClassFolders(folder, classes=["b"]).class_names == ("b",)


def test_folders_that_cannot_be_listed(folder, monkeypatch):
    image(folder / "a" / "locked" / "4.png")
    scan = os.scandir

    def locked(path: str):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", locked)
    for reader in (ClassFolders, UnlabelledFolder):
        with pytest.raises(InputError, match=r"^a/locked: Permission denied \(1 .*on_error=skip"):
            reader(folder)
        assert len(reader(folder, on_error="skip").files) == 4
    monkeypatch.setattr(Path, "iterdir", lambda path: locked(path / "locked"))
    with pytest.raises(InputError, match=r"cannot be listed \(Permission denied\)"):
        ClassFolders(folder)


def test_a_folder_is_a_folder_whatever_it_is_called(folder):
    image(folder / "a" / "x.png" / "4.png")
    (folder / "b" / "empty.png").mkdir()
    assert ClassFolders(folder).files == ("a/0.png", "a/1.png", "a/x.png/4.png", "b/2.png", "b/3.png")
    with pytest.raises(InputError, match=r"images/a/0\.png: no such folder; give one"):
        ClassFolders(folder / "a" / "0.png")


ABSENT = {
    "a/gone.png": "no such file",
    "gone/0.png": "no such file",
    "a/0.png/x.png": "Not a directory",
    "a/" + "x" * 300 + ".png": "no such file",
    "x" * 300 + "/0.png": "File name too long",
    "a\0b/0.png": "embedded null byte",
    "a/\0.png": "no such file",
}


@pytest.mark.parametrize("file", ABSENT)
def test_a_listed_file_that_is_not_there(folder, tmp_path, file):
    (tmp_path / "list.txt").write_text(f"a/0.png 0\n{file} 1\n")
    with pytest.raises(InputError, match=rf"{ABSENT[file]} \(1 of 2 in") as caught:
        ListFile(tmp_path / "list.txt", folder, ["a", "b"])
    assert str(caught.value).isprintable()
    reader = ListFile(tmp_path / "list.txt", folder, ["a", "b"], on_error="skip")
    assert reader.files == ("a/0.png",) and reader.skipped == {file: ABSENT[file]}


# Names of a class folder and a file in it that are not UTF-8 or would break a line → the sample's name.
NAMES = {
    b"caf\xe9/\xff.png": r"caf\xe9/\xff.png",
    b"a/two\nlines.png": r"a/two\x0alines.png",
    b"a/\x1b[31m.png": r"a/\x1b[31m.png",
    "a/\u2028.png".encode(): r"a/\u2028.png",
    "ä/日本 b.png".encode(): "ä/日本 b.png",
}


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_file_can_be_read_checked_cached_and_printed(folder, tmp_path, monkeypatch, name):
    path = image(folder / os.fsdecode(name), 7)
    # The escape of the other name, which must not be taken for it.
    image(folder / NAMES[name].replace("/", "-") / "x.png", 8)
    decoded: list[bytes] = []
    monkeypatch.setattr(checks, "fault", lambda content: decoded.append(content) or fault(content))
    for _ in range(2):
        reader = ClassFolders(folder)
        assert len(check_images({"train": reader}, "error", tmp_path / "cache").rows["train"]) == 6
        assert len(decoded) == 6
    row = [sample_name(reader, i) for i in range(6)].index(NAMES[name])
    assert reader.class_names[int(reader.targets[row])] == NAMES[name].split("/")[0]
    assert all("\n" not in text and text.encode() for text in reader.class_names)
    stored = ImageCache(tmp_path / "cache").store(reader, FORM)
    assert np.array_equal(stored[row], np.asarray(FORM.resize(Image.open(path))))
    path.write_bytes(b"")
    with pytest.raises(InputError) as caught:
        check_images({"train": reader}, "error", tmp_path / "cache")
    assert str(caught.value).startswith(f"{NAMES[name]}: empty file (1 of 6 images")
    path.unlink()
    with pytest.raises(UnreadableImage) as caught:
        decode_image(path)
    assert "\n" not in str(caught.value) and str(caught.value).encode()


def test_paths_that_differ_in_bytes_only_have_verdicts_of_their_own(folder, tmp_path):
    for number, name in enumerate((b"\xff.png", b"\\xff.png", b"\xfe.png", "ÿ.png".encode())):
        path = image(folder / "a" / os.fsdecode(name), number)
        path.write_bytes(path.read_bytes() if number else b"x" * path.stat().st_size)
        os.utime(path, ns=(1, 1))
    for _ in range(2):
        reader = ClassFolders(folder)
        kept = check_images({"train": reader}, "skip", tmp_path / "cache").rows["train"].tolist()
        assert {os.fsencode(reader.files[row]) for row in set(range(8)) - set(kept)} == {b"a/\xff.png"}
