"""Every reader gives the same interface, and says in one line what is wrong with its data."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from ftc import InputError
from ftc.data import (
    ArrayReader,
    ClassFolders,
    EncodedReader,
    HubDataset,
    ListFile,
    TorchvisionDataset,
    UnlabelledFolder,
    columns_of,
    select,
)
from ftc.data.columns import by_column
from ftc.partition import HeadColumns

CLASSES = ("bear", "ant", "cat dog")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two PNGs of each of three classes, one of them deeper down, told apart by their first pixel."""
    value = 0
    for name in CLASSES:
        for file in ("a b.png", "deep/c.PNG"):
            path = tmp_path / "images" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            value += 10
            Image.new("RGB", (5, 4), (value, 0, 0)).save(path)
    (tmp_path / "images" / "ant" / "notes.txt").write_text("no image")
    (tmp_path / "images" / ".hidden").mkdir()
    return tmp_path / "images"


def write_list(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def samples(reader) -> dict[str, tuple[str, int]]:
    """Name → class name and first pixel."""
    return {
        reader.name(i): (reader.class_names[int(reader.targets[i])], reader.decode(i).getpixel((0, 0))[0])
        for i in range(len(reader.targets))
    }


EXPECTED = {
    "bear/a b.png": ("bear", 10),
    "bear/deep/c.PNG": ("bear", 20),
    "ant/a b.png": ("ant", 30),
    "ant/deep/c.PNG": ("ant", 40),
    "cat dog/a b.png": ("cat dog", 50),
    "cat dog/deep/c.PNG": ("cat dog", 60),
}


def test_class_folders(folder):
    reader = ClassFolders(folder)
    assert isinstance(reader, EncodedReader)
    assert reader.class_names == ("ant", "bear", "cat dog")
    assert samples(reader) == EXPECTED
    some = ClassFolders(folder, classes=["cat dog", "ant"])
    assert some.class_names == ("cat dog", "ant")
    assert samples(some) == {k: v for k, v in EXPECTED.items() if v[0] != "bear"}
    assert ClassFolders(folder, mode="L").decode(0).mode == "L"


def test_lists_and_class_folders_give_identical_samples(folder, tmp_path):
    files = [f for f in EXPECTED if "deep" not in f]
    lines = [f"{f} {label}" for f, label in zip(files, (0, 2, 5), strict=True)]
    by_list = ListFile(write_list(tmp_path / "list.txt", *lines), folder)
    assert by_list.class_names == CLASSES  # in the order of the labels, gaps left out
    by_folder = ClassFolders(folder)
    names = HeadColumns(["cat dog", "x", "bear", "ant"])
    mapped = [by_column(names, "train", reader) for reader in (by_list, by_folder)]
    flat, all_ = map(samples, mapped)
    assert flat == {f: EXPECTED[f] for f in files}
    assert flat.items() <= all_.items()
    targets = [{r.name(i): int(r.targets[i]) for i in range(len(r.targets))} for r in mapped]
    assert targets[0] == {"bear/a b.png": 2, "ant/a b.png": 3, "cat dog/a b.png": 0}
    assert targets[0].items() <= targets[1].items()


def test_several_lists_and_names_of_labels(folder, tmp_path):
    one = write_list(tmp_path / "one.txt", "ant/a b.png 1", "", "bear/a b.png 0")
    two = write_list(tmp_path / "two.txt", "ant/deep/c.PNG 1")
    reader = ListFile([one, two], folder, class_names=["B", "A"])
    assert reader.targets.tolist() == [1, 0, 1]
    assert reader.class_names == ("B", "A")


LISTS = {
    "ant/a b.png": "line 1 is 'ant/a b.png'; write one image a line",
    "7": "line 1 is '7'",
    "ant/gone.png 0": r"ant/gone\.png: no such file \(1 of 1 in .*\); mend them, or set data\.on_error=skip",
    "ant/a b.png 0\nant/a b.png 0": "ant/a b.png: named twice in list.txt",
    "ant/a b.png 0\nant/a b.png 1": "ant/a b.png: named twice in list.txt, with labels 0 and 1",
    "ant/a b.png 0\nbear/a b.png 0": "label 0 has images in ant and bear; give class_names",
    "ant/a b.png 0\nant/x.png 1": "folder ant has images of several labels; give class_names",
    "": "no line in it",
}


@pytest.mark.parametrize("content", LISTS)
def test_wrong_lists_are_refused(folder, tmp_path, content):
    with pytest.raises(InputError, match=LISTS[content]) as caught:
        ListFile(write_list(tmp_path / "list.txt", content), folder)
    assert "\n" not in str(caught.value)


def test_what_can_be_skipped_is_counted(folder, tmp_path):
    lines = ["ant/a b.png 0", "ant/gone.png 0", "bear/a b.png 1", "ant/a b.png 0", "cat dog/a b.png 9"]
    file = write_list(tmp_path / "list.txt", *lines)
    reader = ListFile(file, folder, class_names=["ant", "bear"], on_error="skip")
    assert samples(reader) == {f: EXPECTED[f] for f in ("ant/a b.png", "bear/a b.png")}
    assert set(reader.skipped) == {"ant/gone.png", "ant/a b.png", "cat dog/a b.png"}
    with pytest.raises(InputError, match=r"cat dog/a b\.png: label 9 in list\.txt is outside the 2 classes"):
        ListFile(write_list(file, "cat dog/a b.png 9", "ant/a b.png 0"), folder, class_names=["ant", "bear"])


def test_folders_that_are_none(folder, tmp_path):
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no image in it \(1 of 4 class folders in"):
        ClassFolders(folder)
    reader = ClassFolders(folder, on_error="skip")
    assert list(reader.skipped) == ["empty"]
    assert reader.class_names == ("ant", "bear", "cat dog", "empty")
    with pytest.raises(InputError, match="no such folder; give one with a subfolder a class"):
        ClassFolders(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no subfolder; put the images into one subfolder per class"):
        ClassFolders(folder / "empty")
    with pytest.raises(InputError, match="no subfolder dog; choose from ant, bear, cat dog, empty"):
        ClassFolders(folder, classes=["ant", "dog"])


def test_hub_data_sets_from_local_folders(folder, tmp_path):
    pool = [(tmp_path / "images" / f).read_bytes() for f in EXPECTED]
    names = sorted(CLASSES)
    labels = [names.index(name) for name, _ in EXPECTED.values()]
    features = datasets.Features(
        image=datasets.Image(), domain=datasets.Value("string"), label=datasets.ClassLabel(names=names)
    )
    content = {
        "image": [{"bytes": b, "path": None} for b in pool],
        "domain": ["a", "b"] * 3,
        "label": labels,
    }
    table = datasets.Dataset.from_dict(content, features=features)
    (tmp_path / "hub").mkdir()
    table.to_parquet(tmp_path / "hub" / "train-00000-of-00001.parquet")
    reader = HubDataset(str(tmp_path / "hub"), "train", where={"domain": "b"})
    assert isinstance(reader, EncodedReader)
    assert reader.class_names == tuple(names)
    assert sorted(samples(reader).values()) == [("ant", 40), ("bear", 20), ("cat dog", 60)]
    assert reader.encoded(0) == pool[1]
    assert len({reader.stamp(i) for i in range(3)}) == 3

    text = HubDataset(str(tmp_path / "hub"), "train", label="domain")
    assert text.class_names == ("a", "b")
    assert text.targets.tolist() == [0, 1] * 3
    for arguments, message in (
        ({"split": "test"}, "could not read split test"),
        ({"label": "species"}, "no column species; choose from image, domain, label"),
        ({"where": {"domain": "c"}}, "no row with domain=c; choose from a, b"),
        ({"label": "image"}, "column image has no class names"),
    ):
        with pytest.raises(InputError, match=message):
            HubDataset(str(tmp_path / "hub"), **{"split": "train", **arguments})

    for name in CLASSES:  # class folders as the hub's library reads them
        (tmp_path / "flat" / name).mkdir(parents=True)
        (folder / name / "a b.png").rename(tmp_path / "flat" / name / "a.png")
    images = HubDataset(str(tmp_path / "flat"), "train")
    assert sorted(samples(images).values()) == [("ant", 30), ("bear", 10), ("cat dog", 50)]


def test_torchvision_data_sets(folder, tmp_path):
    (folder / ".hidden").rmdir()
    reader = TorchvisionDataset("ImageFolder", folder)
    assert reader.class_names == ("ant", "bear", "cat dog")
    assert reader.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert reader.decode(0).getpixel((0, 0)) == (30, 0, 0)
    with pytest.raises(InputError, match="CIFAR101: no data set of torchvision"):
        TorchvisionDataset("CIFAR101", folder)
    with pytest.raises(InputError, match=r"torchvision's CIFAR10 in .*: Dataset not found"):
        TorchvisionDataset("CIFAR10", tmp_path)


def test_selection_keeps_what_its_reader_can(folder, reader):
    rows = torch.tensor([5, 1])
    chosen = select(ClassFolders(folder), rows)
    assert isinstance(chosen, EncodedReader)
    assert samples(chosen) == {k: EXPECTED[k] for k in ("cat dog/deep/c.PNG", "ant/deep/c.PNG")}
    assert not isinstance(select(reader, rows), EncodedReader)
    assert np.array_equal(np.asarray(select(reader, rows).decode(0)), reader.images[5])


def test_a_folder_without_labels(folder):
    pool = UnlabelledFolder(folder)
    assert pool.targets.tolist() == [-1] * 6
    assert sorted(pool.decode(i).getpixel((0, 0))[0] for i in range(6)) == [10, 20, 30, 40, 50, 60]


# Head columns


def arrays(names: str) -> ArrayReader:
    return ArrayReader(np.zeros((len(names), 2, 2), np.uint8), range(len(names)), tuple(names))


def test_the_datas_own_names_are_the_columns():
    assert columns_of(None, [arrays("ba"), arrays("b")], lambda: None).names == ("b", "a")
    assert columns_of(None, [arrays("ba"), arrays("cb")], lambda: None).names == ("a", "b", "c")


def test_imagenet_by_wordnet_id_and_by_english_name():
    columns = columns_of("imagenet-1k", [], lambda: None)
    assert len(columns) == 1000
    assert columns.names[:2] == ("tench", "goldfish")
    assert columns.column("n01440764") == columns.column("tench") == 0
    assert columns.column("n15075141") == 999
    assert columns.column("Great_White shark") == columns.column("man-eater") == 2
    # Two classes are called crane; neither answers to it.
    assert columns.column("crane") is None
    assert [columns.names[columns.column(f"n{number}")] for number in ("02012849", "03126707")] == [
        "crane (n02012849)",
        "crane (n03126707)",
    ]
    # Both pandas are also called panda; a missile is a projectile, too, but a class of its own.
    assert columns.column("panda") is None
    assert columns.column("missile") != columns.column("projectile")
    assert columns.names[columns.column("Cardigan")] != columns.names[columns.column("cardigan")]
    assert columns.column("CARDIGAN") is None


FILES = {
    "names.txt": ("circle\n\ncross \n", ["circle", "cross"]),
    "list.json": (json.dumps(["circle", "cross"]), ["circle", "cross"]),
    "object.json": (json.dumps({"circle": 0, "cross": 1, "x": 1}), ["circle", "cross"]),
}


@pytest.mark.parametrize("name", FILES)
def test_names_from_a_file(tmp_path, name):
    content, names = FILES[name]
    (tmp_path / name).write_text(content)
    columns = columns_of(str(tmp_path / name), [], lambda: None)
    assert columns.names == tuple(names)
    assert columns.column("x") == (1 if name == "object.json" else None)


WRONG_FILES = {
    "a.json": ("{", r"not a file of names \(JSONDecodeError\)"),
    "b.json": ('{"a": 0, "b": 2}', "its columns leave gaps"),
    "c.json": ('{"a": "b"}', "neither a name a line nor"),
    "d.txt": ("a\nb\na\n", "a names two columns"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_files_that_name_no_columns(tmp_path, name):
    content, message = WRONG_FILES[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        columns_of(str(tmp_path / name), [], lambda: None)


def test_names_of_the_model():
    assert columns_of("model", [], lambda: ("a", "b")).names == ("a", "b")
    with pytest.raises(InputError, match=r"data\.columns=model: the model's weights come without names"):
        columns_of("model", [], lambda: None)


def test_classes_that_the_head_does_not_have_are_listed_or_skipped():
    columns = HeadColumns("abc")
    reader = arrays("xaby")
    with pytest.raises(InputError, match=r"data\.train: the head has no column for x, y \(2 of 4 classes\)"):
        by_column(columns, "train", reader)
    mapped = by_column(columns, "train", reader, unmapped="skip")
    assert mapped.targets.tolist() == [0, 1]
    assert mapped.rows == [1, 2]
    assert mapped.class_names == ("a", "b", "c")
    # A class without images needs no column.
    empty = ArrayReader(np.zeros((1, 2, 2), np.uint8), [1], ("x", "a"))
    assert by_column(columns, "train", empty).targets.tolist() == [0]


def test_names_that_columns_lack_get_columns_after_them():
    columns = HeadColumns("ab", {"A": 0})
    extended = columns.extended("xbAyx")
    assert extended.names == ("a", "b", "x", "y")
    assert extended.added == 2
    assert (extended.column("A"), extended.column("z")) == (0, None)
    assert columns.extended("ba").added == columns.added == 0
