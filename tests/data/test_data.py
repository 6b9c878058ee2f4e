from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from ftc import ClassPartition, InputError, PartitionedDataModule
from ftc.data import ArrayReader, EndlessSampler, ShardSampler, build_transforms
from ftc.data.digits import mnist, uci_digits
from ftc.data.sampler import positions_per_epoch

CONFIG = {
    "input_size": (1, 8, 8),
    "mean": (0.5,),
    "std": (0.5,),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
}


@pytest.fixture
def datamodule(reader, partition):
    train, evaluation = build_transforms(CONFIG)
    return PartitionedDataModule(
        reader, partition, train, evaluation, val=reader, test=reader, batch_size=7, eval_batch_size=16
    )


def labels(loader) -> list[int]:
    return torch.cat([batch["target"] for batch in loader]).tolist()


def test_loaders_hold_the_classes_they_may(datamodule, reader, partition):
    everything, seen = Counter(reader.targets.tolist()), set(partition.seen)
    only_seen = {c: n for c, n in everything.items() if c in seen}
    assert Counter(labels(datamodule.train_dataloader())) == Counter(only_seen)
    assert Counter(labels(datamodule.calibration_dataloader())) == Counter(only_seen)
    gallery, val = datamodule.val_dataloader()
    assert datamodule.validation_roles == ("gallery", "val")
    for loader in (gallery, val, datamodule.test_dataloader()):
        assert Counter(labels(loader)) == everything


def test_without_gallery_validation_sees_calibration_data(reader, partition):
    transform = build_transforms(CONFIG)[1]
    data = PartitionedDataModule(reader, partition, transform, transform, val=reader, gallery=False)
    assert data.validation_roles == ("calibration", "val")
    assert set(labels(data.val_dataloader()[0])) == set(partition.seen)


def test_evaluation_keeps_order_and_ids(datamodule, reader):
    batch_ids = torch.cat([batch["id"] for batch in datamodule.test_dataloader()])
    assert torch.equal(batch_ids, torch.arange(60))
    first = next(iter(datamodule.test_dataloader()))
    assert first["image"].shape == (16, 1, 8, 8)
    expected = (torch.from_numpy(reader.images[3].copy()).float() / 255 - 0.5) / 0.5
    torch.testing.assert_close(first["image"][3, 0], expected)


def test_iterations_per_epoch_draws_from_an_endless_stream(reader, partition):
    transform = build_transforms(CONFIG)[1]
    # Seven steps of 8 from 30 seen images: neither a pass nor a multiple of one.
    data = PartitionedDataModule(
        reader, partition, transform, transform, batch_size=8, iterations_per_epoch=7, seed=3
    )
    loader = data.train_dataloader()
    ids: list[int] = []
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        batches = [batch["id"].tolist() for batch in loader]
        assert [len(b) for b in batches] == [8] * 7
        ids += [i for b in batches for i in b]
    # Concatenated permutations: every whole round of 30 holds each image once.
    for start in range(0, len(ids) - 30, 30):
        assert len(set(ids[start : start + 30])) == 30
    assert ids[:30] != ids[30:60]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_shards_neither_pad_nor_drop(world_size):
    shards = [list(ShardSampler(10, rank, world_size)) for rank in range(world_size)]
    assert sorted(i for shard in shards for i in shard) == list(range(10))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_endless_stream_without_overlap(world_size):
    length = positions_per_epoch(10, 4, world_size, iterations=5)
    assert length == 20 * world_size
    whole = list(EndlessSampler(10, length, seed=5))
    shards = [list(EndlessSampler(10, length, 5, rank, world_size)) for rank in range(world_size)]
    assert [s for turn in zip(*shards, strict=True) for s in turn] == whole
    assert all(len(shard) == 20 for shard in shards)
    pass_ = positions_per_epoch(10, 4, world_size, iterations=None)
    assert pass_ % world_size == 0
    assert 10 <= pass_ < 10 + world_size


def test_stream_is_a_function_of_seed_and_position():
    first, again, other = EndlessSampler(9, 20, 1), EndlessSampler(9, 20, 1), EndlessSampler(9, 20, 2)
    for sampler in (first, again, other):
        sampler.set_epoch(2)
    list(first)
    assert list(first) == list(again) != list(other)


def test_seen_class_without_images_is_named(reader):
    partition = ClassPartition(6, [0, 1], [2, 3])
    few = ArrayReader(reader.images[::6], reader.targets[::6], reader.class_names)
    with pytest.raises(InputError, match=r"seen class 1 \(b\) has no training image"):
        PartitionedDataModule(few, partition, *build_transforms(CONFIG))


def test_head_width_must_fit_the_readers(reader):
    with pytest.raises(InputError, match=r"data\.train names 6 classes, the head has 7"):
        PartitionedDataModule(reader, ClassPartition(7, [0]), *build_transforms(CONFIG))


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (np.zeros((2, 4, 4), np.float32), [0, 1], "give uint8"),
        (np.zeros((2, 4), np.uint8), [0, 1], "shape"),
        (np.zeros((2, 4, 4), np.uint8), [0], "2 images but 1 targets"),
        (np.zeros((2, 4, 4), np.uint8), [0, 2], "outside the 2 class names"),
    ],
)
def test_bad_arrays_are_named(images, targets, message):
    with pytest.raises(InputError, match=message):
        ArrayReader(images, targets, ["a", "b"])


def test_digits_are_stratified_and_disjoint():
    splits = {name: mnist(name) for name in ("train", "val", "test")}
    for name, per_class in (("train", 300), ("val", 100), ("test", 100)):
        assert splits[name].targets.bincount().tolist() == [per_class] * 10
    digests = {name: {image.tobytes() for image in split.images} for name, split in splits.items()}
    assert not digests["train"] & digests["test"]
    assert not digests["train"] & digests["val"]
    assert not digests["val"] & digests["test"]
    assert len(uci_digits().targets) == 1797
    with pytest.raises(InputError, match="choose from train, val, test"):
        mnist("all")
