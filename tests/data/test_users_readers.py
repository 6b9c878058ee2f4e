"""What a reader of any class must have, and that each has an image to use before anything is trained."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from ftc import InputError, PartitionedDataModule
from ftc.assembly.images import build_images
from ftc.config.commands import TrainConfig
from ftc.data import ArrayReader, Preprocessing, hold_out
from ftc.data.readers import check_reader
from tests.conftest import composed

GOOD = {"targets": torch.tensor([0, 1, 1]), "class_names": ("a", "b"), "decode": None}

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": (dict.fromkeys(GOOD), "SimpleNamespace has no targets, class_names, decode, see ftc"),
    "no targets": ({"targets": None}, "SimpleNamespace has no targets, see"),
    "list": ({"targets": [0, 1, 1]}, r"its targets are list \(\); give a tensor, torch\.int64 \(N,\)"),
    "floats": ({"targets": torch.tensor([0.0])}, r"its targets are torch\.float32 \(1,\); give"),
    "one-hot": ({"targets": torch.eye(2).long()}, r"its targets are torch\.int64 \(2, 2\); give"),
    "scalar": ({"targets": torch.tensor(0)}, r"its targets are torch\.int64 \(\); give"),
    "beyond": (
        {"targets": torch.tensor([0, 2])},
        "its targets run from 0 to 2, but it has 2 class_names; give",
    ),
    "negative": (
        {"targets": torch.tensor([0, -1])},
        "its targets run from -1 to 0, but it has 2 class_names; give",
    ),
    "no names": ({"class_names": ()}, "its targets run from 0 to 1, but it has 0 class_names"),
    "text": ({"class_names": "ab"}, "its class_names are no tuple of texts"),
    "numbers": ({"class_names": (0, 1)}, "its class_names are no tuple of texts"),
    "groups": ({"groups": ["x"]}, "it has 1 groups for 3 samples; give one a sample"),
}


def own(**changes: Any) -> SimpleNamespace:
    """A reader that a user wrote; what is None in ``changes`` is left out."""
    members = {**GOOD, **changes}
    return SimpleNamespace(**{k: v for k, v in members.items() if v is not None or k not in changes})


@pytest.mark.parametrize("kind", WRONG)
def test_readers_that_are_none(kind):
    changes, message = WRONG[kind]
    with pytest.raises(InputError, match=rf"^data\.readers\.test: {message}") as caught:
        check_reader("data.readers.test", own(**changes))
    assert "\n" not in str(caught.value)


def test_readers_that_are_some():
    check_reader("train", own())
    check_reader("train", own(targets=torch.tensor([], dtype=torch.int64), class_names=[]))
    check_reader("pool", own(targets=torch.tensor([-1, 1])), labelled=False)
    with pytest.raises(InputError, match="run from -2 to 1"):
        check_reader("pool", own(targets=torch.tensor([-2, 1])), labelled=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes of two images to train on, and two of one to test on."""
    for number, name in enumerate(
        ("train/a/0", "train/a/1", "train/b/2", "train/b/3", "test/a/4", "test/b/5")
    ):
        path = tmp_path / "data" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return tmp_path / "data"


MODEL = ("partition.num_seen=1", "partition.num_absent=1", "model.pretrained=true")


def build(data: Path, *overrides: str) -> Any:
    settings = (f"cache_dir={data.parent / 'cache'}", "data=folder", f"data.root={data}", *MODEL, *overrides)
    return build_images(composed(TrainConfig, "train", *settings))


def test_any_reader_is_checked_where_it_is_built(data):
    assert len(build(data).readers["train"].targets) == 4
    for key in ("source", "pool"):
        with pytest.raises(
            InputError, match=rf"^data\.readers\.{key}: Loading has no targets, class_names, d"
        ):
            build(data, f"data.readers.{key}={{_target_:ftc.data.Loading}}")


def test_files_that_cannot_be_looked_at_are_counted_and_odd_names_go_into_manifests(data):
    os.mkfifo(data / "train" / "a" / "pipe.png")
    (data / "test" / "b" / "link.png").symlink_to("gone.png")
    name = os.fsdecode(b"\xff.png")
    (data / "train" / "a" / "0.png").rename(data / "train" / "a" / name)
    with pytest.raises(
        InputError, match=r"^a/pipe\.png: no regular file; b/link\.png: No such file .*\(2 of 8"
    ):
        build(data)
    images = build(data, "data.on_error=skip")
    assert images.notes == (
        "data.readers.train: 1 samples left out, 4 are used",
        "data.readers.test: 1 samples left out, 2 are used",
    )
    assert images.samples["train"]["count"] == 4
    assert images.names("train", torch.ones(4, dtype=torch.bool))[1] == r"a/\xff.png"


@pytest.mark.parametrize(
    ("damaged", "overrides", "message"),
    [
        ("test", [], "test: none of its 2 images can be used"),
        ("train", [], "train: none of its 4 images can be used"),
        ("pool", ["data.readers.pool={_target_:ftc.data.UnlabelledFolder,root:POOL}"], "pool: none of its 1"),
        ("", ["data.columns=NAMES", "data.unmapped=skip"], r"train: the head has no column .*data\.columns"),
    ],
)
def test_a_reader_without_an_image_to_use_is_named(data, damaged, overrides, message):
    (data / "names.txt").write_text("x\ny\n")
    (data / "pool").mkdir()
    (data / "pool" / "9.png").write_bytes(b"")
    for path in (data / damaged).rglob("*.png") if damaged else ():
        path.write_bytes(b"")
    places = {"NAMES": data / "names.txt", "POOL": data / "pool"}
    for name, place in places.items():
        overrides = [override.replace(name, str(place)) for override in overrides]
    with pytest.raises(InputError, match=rf"^data\.readers\.{message}"):
        build(data, "data.on_error=skip", *overrides)


def test_one_image_a_class_leaves_nothing_to_hold_out(reader, partition):
    config = {"input_size": (1, 8, 8), "mean": (0.5,), "std": (0.5,), "interpolation": "bilinear"}
    few = ArrayReader(reader.images[:6], reader.targets[:6], reader.class_names)
    held_out = hold_out(few.targets, partition.seen, 0.5)
    data = PartitionedDataModule(few, partition, Preprocessing(config), held_out=held_out)
    for loaders in (data.val_dataloader, data.held_out_dataloader):
        with pytest.raises(InputError, match=r"^data\.holdout: no image is held .* a single image or group"):
            loaders()


def test_a_split_without_images_of_the_seen_classes_is_named(reader, partition):
    config = {"input_size": (1, 8, 8), "mean": (0.5,), "std": (0.5,), "interpolation": "bilinear"}
    rows = torch.isin(reader.targets, torch.tensor(partition.absent))
    absent = ArrayReader(reader.images[rows], reader.targets[rows], reader.class_names)
    data = PartitionedDataModule(reader, partition, Preprocessing(config), val=absent)
    with pytest.raises(InputError, match=r"^data\.readers\.val: no image of the classes that it is for"):
        data.held_out_dataloader()
