"""Images and classes are the same by what they are, not by how they are written; what is left out is said."""

from __future__ import annotations

import os
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from ftc import InputError
from ftc.config.commands import TrainConfig
from ftc.data import ClassFolders, ListFile, UnlabelledFolder, check_images
from ftc.data.columns import by_column, columns_of
from ftc.data.decode import UnreadableImage, decode_image
from ftc.partition import PartitionManifest
from ftc.reporting.tables import console
from ftc.runs.parts import build_source_stage
from tests.conftest import composed

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 14, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    for split, count in (("train", 6), ("test", 4)):
        for i in range(count):
            draw(tmp_path / split / ("ant", "bee")[i % 2] / f"{i}.png", 10 * count + i)
    return tmp_path


@pytest.mark.parametrize("same", ["link", "hard link", "copy", "renamed copy"])
def test_training_images_that_are_evaluated_on_are_found_by_content(photos, same):
    old, new = photos / "train" / "ant" / "0.png", photos / "test" / "ant" / "0.png"
    new.unlink()
    if same == "link":
        new.symlink_to(old)
    elif same == "hard link":
        os.link(old, new)
    else:
        (new if same == "copy" else new.with_name("other.png")).write_bytes(old.read_bytes())
    readers = {split: ClassFolders(photos / split) for split in ("train", "test")}
    with pytest.raises(InputError, match=r"ant/0\.png: the same image as ant/.*\.png of data\.readers\.test"):
        check_images(readers, "error", photos / "cache")
    assert len(check_images(readers, "skip", photos / "cache").rows["train"]) == 5
    allowed = check_images(readers, "error", photos / "cache", overlap="allow")
    assert (len(allowed.rows["train"]), allowed.overlapping) == (6, 1)


def test_repeated_bytes_inside_a_split_are_counted(photos):
    for name in ("copy.png", "again.png"):
        (photos / "train" / "bee" / name).write_bytes((photos / "train" / "bee" / "1.png").read_bytes())
    readers = {split: ClassFolders(photos / split) for split in ("train", "test")}
    checked = check_images(readers, "error", photos / "cache")
    assert (checked.repeated, checked.overlapping) == ({"train": 2}, 0)


@pytest.mark.parametrize("again", ["./ant/0.png", "ant/../ant/0.png", "ant//0.png", "bee/../ant/./0.png"])
def test_a_path_is_the_same_however_it_is_written(photos, again):
    (photos / "list.txt").write_text(f"ant/0.png 0\nbee/1.png 1\n{again} 1\n")
    with pytest.raises(InputError, match=r"ant/0\.png: named twice in list\.txt, with labels 0 and 1"):
        ListFile(photos / "list.txt", photos / "train")


def test_a_class_is_the_same_however_its_name_is_composed(photos):
    assert NFC != NFD
    for split, name in (("train", NFC), ("test", NFD)):
        draw(photos / split / name / "9.png", len(name))
    readers = [ClassFolders(photos / split) for split in ("train", "test")]
    columns = columns_of(None, readers, lambda: None)
    assert columns.names == ("ant", "bee", NFC)
    labels = [
        by_column(columns, str(key), reader).targets.unique().tolist() for key, reader in enumerate(readers)
    ]
    assert labels == [[0, 1, 2]] * 2
    (photos / "names.txt").write_text(f"bee\n{NFD}\nant\n")
    # What a run on another machine wrote down, or a user writes.
    manifest = PartitionManifest(class_names=("ant", "bee", NFD), seen=(NFD,), absent=("ant",), samples={})
    assert manifest.partition(columns).seen == (2,)
    listed = columns_of(str(photos / "names.txt"), readers, lambda: None)
    assert listed.column(NFC) == listed.column(NFD) == 1


@pytest.mark.parametrize("target", [".", "..", "../bee"], ids=["itself", "all", "another class"])
def test_every_real_folder_is_read_once_and_with_its_own_label(photos, target):
    (photos / "train" / "ant" / "more").symlink_to(target)
    reader = ClassFolders(photos / "train")
    assert len(reader.files) == 6
    assert all(
        reader.class_names[t] == f.split("/")[0] for t, f in zip(reader.targets, reader.files, strict=True)
    )
    assert len(UnlabelledFolder(str(photos / "train")).files) == 6


def test_linked_folders_are_read(photos):
    draw(photos / "elsewhere" / "deep" / "7.png", 1)
    (photos / "train" / "cat").symlink_to(photos / "elsewhere")
    (photos / "train" / "bee" / "more").symlink_to(photos / "test" / "ant")
    reader = ClassFolders(photos / "train")
    assert reader.class_names == ("ant", "bee", "cat")
    assert torch.bincount(reader.targets).tolist() == [3, 5, 1]


def test_what_pillow_reads_is_read_and_the_rest_is_counted(photos, capsys):
    image = Image.open(photos / "train" / "ant" / "0.png")
    for suffix in ("gif", "jfif", "jpe", "jp2", "tga", "BMP"):
        image.save(photos / "train" / "ant" / f"x.{suffix}", {"jfif": "JPEG", "jpe": "JPEG"}.get(suffix))
    for name in ("a.heic", "b.HEIC", "notes.txt", "README", ".hidden.png"):
        (photos / "train" / "bee" / name).write_text("")
    reader = ClassFolders(photos / "train")
    assert len(reader.files) == 12
    assert reader.ignored == {".heic": 2, ".txt": 1, "no ending": 1}
    overrides = (
        "experiment=folder",
        f"data.root={photos}",
        "model.name=test_resnet",
        "model.pretrained=false",
    )
    checkpoint = photos / "any.pth"
    checkpoint.write_bytes(b"")
    config = composed(
        TrainConfig, "train", *overrides, f"source.checkpoint={checkpoint}", f"cache_dir={photos}"
    )
    build_source_stage(config, console())
    printed = capsys.readouterr().out
    assert (
        "data.readers.train: passed over 2 .heic, 1 .txt, 1 no ending, which Pillow does not read" in printed
    )


def test_a_folder_without_images_says_what_it_has(tmp_path):
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "a.heic").write_text("")
    with pytest.raises(InputError, match=r"ant: no image in it; it has 1 \.heic, which Pillow does not read"):
        ClassFolders(tmp_path)


@pytest.mark.parametrize("largest", [255, 10**6])
def test_integers_of_unknown_range_are_refused(tmp_path, largest):
    values = np.linspace(0, largest, 64).astype(np.int32).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImage, match="its pixels are 32-bit integers of unknown range"):
        decode_image(tmp_path / "a.tif")
    # Sixteen bits have a range of their own, whatever Pillow makes of them.
    for name in ("b.png", "c.tif"):
        Image.fromarray(np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)).save(tmp_path / name)
        assert np.asarray(decode_image(tmp_path / name, "L")).max() == 255
