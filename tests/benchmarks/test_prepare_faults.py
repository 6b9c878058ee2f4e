"""What ``python -m ftc.prepare`` refuses in one line, leaving nothing behind: archives, files, manifests."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ftc.benchmarks.catalogue import read_table
from ftc.benchmarks.iwildcam import IWildCam
from ftc.benchmarks.prepare import prepare
from ftc.errors import InputError
from ftc.prepare import main
from tests import replicas

WNID = "n01443537"


def patched(archive: Path, offsets: dict[bytes, int], value: int) -> None:
    """Overwrite a 16-bit field of every local and central header of a zip."""
    content = bytearray(archive.read_bytes())
    for signature, offset in offsets.items():
        start = content.find(signature)
        while start >= 0:
            struct.pack_into("<H", content, start + offset, value)
            start = content.find(signature, start + 4)
    archive.write_bytes(content)


def zipped(folder: Path, **fields: int) -> Path:
    """A zip of one image, with fields of its headers overwritten."""
    archive = folder / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(f"{WNID}/a.jpg", replicas.draw(0, 1, 0, 0))
    offsets = {"flags": (6, 8), "method": (8, 10)}
    for field, value in fields.items():
        local, central = offsets[field]
        patched(archive, {b"PK\3\4": local, b"PK\1\2": central}, value)
    return archive


def damaged(folder: Path, method: int) -> Path:
    """A zip whose packed data are damaged."""
    archive = folder / "packed.zip"
    with zipfile.ZipFile(archive, "w", method) as packed:
        packed.writestr("a.jpg", bytes(range(256)) * 100)
    content = bytearray(archive.read_bytes())
    content[45:100] = bytes(55)
    archive.write_bytes(content)
    return archive


def packed_tar(folder: Path) -> Path:
    """A compressed tar whose end is cut off."""
    with tarfile.open(folder / "packed.tgz", "w:gz") as packed:
        image = folder / "a.jpg"
        image.write_bytes(os.urandom(100_000))
        packed.add(image, f"{WNID}/a.jpg")
    content = (folder / "packed.tgz").read_bytes()
    (folder / "packed.tgz").write_bytes(content[:50_000])
    return folder / "packed.tgz"


def original(name: bytes, make: Callable[[Path], object] | None = None) -> Callable[[Path], Path]:
    """A folder of one class, with a file of a name."""

    def build(folder: Path) -> Path:
        path = folder / "original" / WNID / os.fsdecode(name)
        path.parent.mkdir(parents=True)
        (path.parent / "good.jpg").write_bytes(replicas.draw(0, 1, 0, 0))
        if make is None:
            path.write_bytes(replicas.draw(0, 1, 0, 1))
        else:
            make(path)
        return folder / "original"

    return build


ORIGINALS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "encrypted": (lambda folder: zipped(folder, flags=1), "packed.zip: File .* is encrypted, .*; unpack it"),
    "unknown method": (lambda folder: zipped(folder, method=98), "packed.zip: .*compression.*; unpack it"),
    "damaged deflate": (lambda folder: damaged(folder, zipfile.ZIP_DEFLATED), "packed.zip: a broken archive"),
    "damaged lzma": (lambda folder: damaged(folder, zipfile.ZIP_LZMA), "packed.zip: a broken archive"),
    "torn tar": (packed_tar, "packed.tgz: a broken archive"),
    "line end in a name": (original(b"a\nb.jpg"), r"'n01443537/a\\nb\.jpg': cannot stand in a line"),
    "name that is not UTF-8": (original(b"\xff.jpg"), r"'n01443537/\\udcff\.jpg': cannot stand in a line"),
    "pipe": (original(b"a.jpg", os.mkfifo), "a.jpg: no regular file, or a link to nowhere"),
    "dangling link": (original(b"a.jpg", lambda path: path.symlink_to("gone")), "a.jpg: no regular file"),
    "loop of links": (original(b"a.jpg", lambda path: path.symlink_to(path)), "a.jpg: no regular file"),
    "folder": (original(b"a.jpg", lambda path: path.mkdir()), "a.jpg: no regular file"),
}


@pytest.mark.parametrize("kind", ORIGINALS)
@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_what_cannot_be_laid_out_is_one_line_and_leaves_nothing(tmp_path, capsys, kind, there):
    build, message = ORIGINALS[kind]
    (tmp_path / "from").mkdir()
    source = build(tmp_path / "from")
    if there:
        (tmp_path / "deep" / "data").mkdir(parents=True)
    to = str(tmp_path / "deep" / "data")
    with pytest.raises(SystemExit) as stopped:
        main(["imagenet_r", "--from", str(source), "--to", to])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith("ftc: error: ") and error.count("\n") == 1
    with pytest.raises(InputError, match=message):
        prepare("imagenet_r", Path(to), source)
    assert sorted(path.name for path in tmp_path.rglob("*") if "from" not in path.parts) == (
        ["data", "deep"] if there else []
    )


def test_files_of_others_stay(tmp_path):
    build, _ = ORIGINALS["pipe"]
    source = build(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("mine")
    with pytest.raises(InputError):
        prepare("imagenet_r", tmp_path / "data", source)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["notes.txt"]


def test_a_place_that_is_taken(tmp_path):
    source = original(b"a.jpg")(tmp_path)
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "imagenet_r").write_text("")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "imagenet_r").symlink_to("elsewhere")
    for folder in ("file", "link"):
        with pytest.raises(InputError, match="imagenet_r: is there but was not prepared"):
            prepare("imagenet_r", tmp_path / folder, source)


def test_paths_that_are_not_utf_8(tmp_path, capfdbinary):
    source = original(b"a.jpg")(tmp_path)
    source = source.rename(source.with_name(os.fsdecode(b"original\xff")))
    to = os.fsdecode(os.fsencode(tmp_path) + b"/\xfe")
    main(["imagenet_r", "--from", str(source), "--to", to])
    assert rb"/\xfe/imagenet_r: prepared, 2 images" in capfdbinary.readouterr().out
    manifest = json.loads((Path(to) / "imagenet_r" / "prepared.json").read_text())
    assert manifest["origin"]["from"].endswith(r"original\xff")


GOOD = {"benchmark": "imagenet_r", "origin": {}, "lists": "own", "total": 1, "images": {}}
MANIFESTS = {
    "empty": b"",
    "not UTF-8": json.dumps({**GOOD, "task": "x"}).encode().replace(b'"x"', b'"\xff"'),
    "deep": b"[" * 100_000,
    "deep images": json.dumps(GOOD).encode().replace(b"}}", b'"a": ' + b'{"a": ' * 10_000),
    "list": b"[]",
    "wrong types": json.dumps({**GOOD, "total": "many"}).encode(),
    "other benchmark": json.dumps({**GOOD, "benchmark": "office_home"}).encode(),
    "unknown benchmark": json.dumps({**GOOD, "benchmark": "x"}).encode(),
    "no lists": json.dumps({**GOOD, "lists": None}).encode(),
    "half a character": json.dumps({**GOOD, "task": "\ud800"}).encode(),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_damaged_manifests(tmp_path, kind):
    (tmp_path / "imagenet_r").mkdir()
    manifest = tmp_path / "imagenet_r" / "prepared.json"
    manifest.write_text(json.dumps(GOOD))
    assert "is ready" in prepare("imagenet_r", tmp_path)
    manifest.write_bytes(MANIFESTS[kind])
    with pytest.raises(InputError, match=r"prepared\.json: not what ftc\.prepare wrote; move") as caught:
        prepare("imagenet_r", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_image_of_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(replicas, "draw", lambda *arguments, **options: b"no image")
    tables = replicas.office_home_hub(tmp_path / "tables", images_per_class=2, file_names=False)
    with pytest.raises(InputError, match=r"^Art/\w+: an image of it is damaged; give the hub's files"):
        prepare("office_home", tmp_path / "data", tables)
    assert not (tmp_path / "data").exists()


# A table of iWildCam, what is written into its first row or all rows of test cameras, and the line on it.
CELLS = [
    ("metadata.csv", "y", "²", "has label ², but there are 5 classes"),
    ("metadata.csv", "y", "٣", "has label ٣, but there are 5 classes"),
    ("metadata.csv", "y", "9" * 5000, "has label 9+, but there are 5 classes"),
    ("metadata.csv", "location_remapped", "five", "location_remapped 'five' is no number"),
    ("metadata.csv", "location_remapped", "²", "location_remapped '²' is no number"),
    ("categories.csv", "y", "²", "its labels leave gaps"),
]


@pytest.mark.parametrize(("table", "column", "value", "message"), CELLS)
def test_cells_that_are_no_numbers(tmp_path, table, column, value, message):
    folder = replicas.wilds_folder(tmp_path)
    lines = (folder / table).read_text().splitlines()
    place = lines[0].split(",").index(column)
    part = lines[0].split(",").index("split") if table == "metadata.csv" else None
    for number, line in enumerate(lines[1:], start=1):
        cells = line.split(",")
        if number == 1 if part is None else cells[part] == "test":
            cells[place] = value
            lines[number] = ",".join(cells)
    (folder / table).write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        IWildCam(folder, "train")


def test_short_rows_and_a_byte_order_mark(tmp_path):
    table = tmp_path / "table.csv"
    table.write_bytes(b"\xef\xbb\xbfy,name\r\n0,a\r\n1\r\n")
    with pytest.raises(InputError, match=r"table\.csv: row 2 lacks fields"):
        read_table(table, ["y", "name"])
    assert [row["y"] for row in read_table(table, ["y"])] == ["0", "1"]


def test_images_of_wilds_that_are_links_to_nowhere(tmp_path):
    folder = replicas.wilds_folder(tmp_path / "wilds")
    image = next(iter(sorted((folder / "train").iterdir())))
    image.unlink()
    image.symlink_to("gone")
    with pytest.raises(InputError, match="no regular file, or a link to nowhere"):
        prepare("iwildcam", tmp_path / "data", folder)
    shutil.rmtree(folder / "train")
    (folder / "train").symlink_to("train")
    with pytest.raises(InputError, match=r"is not there \(450 of 450"):
        prepare("iwildcam", tmp_path / "data", folder)


def test_what_is_interrupted_says_so_in_a_line(monkeypatch, capsys):
    def presses(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ftc.prepare.prepare", presses)
    with pytest.raises(SystemExit) as ended:
        main(["emoji"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "ftc: interrupted; nothing is laid out\n"
