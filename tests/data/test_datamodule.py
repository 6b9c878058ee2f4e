from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from ftc import ClassPartition, InputError, PartitionedDataModule
from ftc.data import (
    ArrayReader,
    EndlessSampler,
    Loading,
    Preprocessing,
    ShardSampler,
    UnlabelledFolder,
    hold_out,
    select,
)
from ftc.data.loaders import Kept
from ftc.data.sampler import positions_per_epoch

CONFIG = {
    "input_size": (1, 8, 8),
    "mean": (0.5,),
    "std": (0.5,),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
}

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}


@pytest.fixture
def datamodule(reader, partition):
    return PartitionedDataModule(
        reader,
        partition,
        Preprocessing(CONFIG),
        val=reader,
        test=reader,
        loading=Loading(batch_size=7, eval_batch_size=16),
    )


def labels(loader) -> list[int]:
    return torch.cat([batch["target"] for batch in loader]).tolist()


def ids(loader) -> set[int]:
    return {i for batch in loader for i in batch["id"].tolist()}


def test_loaders_hold_the_classes_they_may(datamodule, reader, partition):
    everything, seen = Counter(reader.targets.tolist()), set(partition.seen)
    only_seen = {c: n for c, n in everything.items() if c in seen}
    assert Counter(labels(datamodule.train_dataloader())) == Counter(only_seen)
    assert Counter(labels(datamodule.calibration_dataloader())) == Counter(only_seen)
    calibration, gallery, val = datamodule.val_dataloader()
    assert datamodule.validation_roles == ("calibration", "gallery", "val")
    assert Counter(labels(calibration)) == Counter(only_seen)
    assert Counter(labels(gallery)) == everything - Counter(only_seen)
    for loader in (val, datamodule.test_dataloader()):
        assert Counter(labels(loader)) == everything


def test_there_is_no_gallery_without_other_classes_or_wish(reader, partition):
    def roles(train, **arguments):
        data = PartitionedDataModule(train, partition, Preprocessing(CONFIG), val=reader, **arguments)
        return data.validation_roles

    seen_only = select(reader, torch.isin(reader.targets, torch.tensor(partition.seen)).nonzero()[:, 0])
    assert roles(seen_only) == roles(reader, gallery_every=None) == ("calibration", "val")


@pytest.mark.parametrize(
    ("every", "check", "epochs", "expected"),
    [
        (2, 1, 5, [-1, 1, 3, 4]),
        (3, 1, 6, [-1, 2, 5]),
        (1, 1, 2, [-1, 0, 1]),
        (9, 1, 3, [-1, 2]),
        # The last validation comes before the last epoch.
        (4, 2, 5, [-1, 3]),
    ],
)
def test_the_gallery_is_evaluated_now_and_then(reader, partition, every, check, epochs, expected):
    data = PartitionedDataModule(
        reader, partition, Preprocessing(CONFIG), val=reader, gallery_every=every, loading=Loading(60)
    )
    module = BoringModule()
    settings = {"max_epochs": epochs, "check_val_every_n_epoch": check, "num_sanity_val_steps": 0}
    trainer = Trainer(**settings, **QUIET, callbacks=[recorded := Galleries()])
    trainer.validate(module, data, verbose=False)
    trainer.fit(module, datamodule=data)
    assert recorded.epochs == expected


class BoringModule(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return self.weight * batch["image"].mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Galleries(Callback):
    """Notes the epochs that evaluate a gallery; −1 before the training."""

    def __init__(self):
        self.epochs = []

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        if dataloader_idx == 1 and batch_idx == 0:
            self.epochs.append(trainer.current_epoch if trainer.state.fn == "fit" else -1)


def test_evaluation_batches_suit_the_device(reader, partition):
    def batch_size(size, device="cpu", **arguments):
        config = {**CONFIG, "input_size": (1, size, size)}
        data = PartitionedDataModule(
            reader, partition, Preprocessing(config), val=reader, loading=Loading(60, **arguments)
        )
        strategy = SimpleNamespace(root_device=torch.device(device))
        data.trainer = SimpleNamespace(global_rank=0, world_size=2, num_devices=1, strategy=strategy)
        return data.calibration_dataloader().batch_size

    assert batch_size(8) == 8192
    assert batch_size(224) == 10
    assert batch_size(1000) == 4
    # On accelerators twice a process's share of a training batch.
    assert batch_size(224, "meta") == 60
    assert batch_size(224, eval_batch_size=7) == 7


def test_evaluation_images_are_resized_once(reader, partition):
    decoded = []

    class Counted(ArrayReader):
        def decode(self, index):
            decoded.append(index)
            return super().decode(index)

    counted = Counted(reader.images, reader.targets, reader.class_names)
    data = PartitionedDataModule(counted, partition, Preprocessing(CONFIG), val=reader)
    first = [torch.cat([batch["image"] for batch in loader]) for loader in data.val_dataloader()[:2]]
    again = [torch.cat([batch["image"] for batch in loader]) for loader in data.val_dataloader()[:2]]
    assert all(torch.equal(*images) for images in zip(first, again, strict=True))
    assert sorted(decoded) == list(range(60))


def test_what_is_kept_has_a_limit():
    loaded = []

    def load(row):
        loaded.append(row)
        return torch.full((1, 2, 2), row, dtype=torch.uint8)

    kept = Kept(load, 10)
    for row in (0, 1, 2, 0, 1, 2):
        assert int(kept(row)[0, 0, 0]) == row
    assert loaded == [0, 1, 2, 2]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.999])
def test_holdout_takes_seen_training_images_out_of_everything_else(reader, partition, share):
    chosen = hold_out(reader.targets, partition.seen, share)
    data = PartitionedDataModule(
        reader, partition, Preprocessing(CONFIG), held_out=chosen, loading=Loading(batch_size=8)
    )
    _, gallery, val = data.val_dataloader()
    held_out = ids(val)
    trained = ids(data.train_dataloader())
    counts = Counter(labels(val))
    # Ten images a class; a share counts up, one image stays.
    assert counts == {c: min(math.ceil(10 * share), 9) for c in partition.seen}
    assert set(labels(data.train_dataloader())) == set(partition.seen)
    assert trained == ids(data.calibration_dataloader())
    for others in (trained, ids(gallery)):
        assert not held_out & others
    assert held_out | trained | ids(gallery) == set(range(60))
    assert held_out == ids(data.held_out_dataloader())


def test_held_out_images_are_spread_evenly(partition):
    images = np.zeros((600, 8, 8), np.uint8)
    reader = ArrayReader(images, np.repeat(np.arange(6), 100), tuple("abcdef"))
    chosen = hold_out(reader.targets, partition.seen, 0.1)
    data = PartitionedDataModule(reader, partition, Preprocessing(CONFIG), held_out=chosen)
    held_out = sorted(i - 200 for i in ids(data.held_out_dataloader()) if 200 <= i < 300)
    assert held_out == list(range(4, 100, 10))


def test_a_class_of_one_image_keeps_it_for_training(reader, partition):
    rows = [0, *range(1, 60, 6), *range(2, 60, 6), *range(4, 60, 6)]
    few = ArrayReader(reader.images[rows], reader.targets[rows], reader.class_names)
    chosen = hold_out(few.targets, partition.seen, 0.5)
    data = PartitionedDataModule(few, partition, Preprocessing(CONFIG), held_out=chosen)
    assert set(labels(data.held_out_dataloader())) == {2, 4}
    assert 0 in labels(data.train_dataloader())


def test_held_out_data_of_a_validation_split_are_its_seen_classes(datamodule, partition):
    assert set(labels(datamodule.held_out_dataloader())) == set(partition.seen)


@pytest.mark.parametrize("share", [-0.1, 1.0, 20])
def test_holdout_that_is_no_share(reader, partition, share):
    with pytest.raises(InputError, match="give a share below 1"):
        hold_out(reader.targets, partition.seen, share)


def test_held_out_images_beside_a_validation_split_or_of_another_length(reader, partition):
    chosen = hold_out(reader.targets, partition.seen, 0.2)
    for arguments in ({"val": reader, "held_out": chosen}, {"held_out": chosen[1:]}):
        with pytest.raises(InputError, match="give one value an image, and no validation split"):
            PartitionedDataModule(reader, partition, Preprocessing(CONFIG), **arguments)


def test_a_seen_class_of_which_all_images_are_held_out(reader, partition):
    with pytest.raises(InputError, match=r"seen class 2 \(.*\) has no training image"):
        PartitionedDataModule(reader, partition, Preprocessing(CONFIG), held_out=reader.targets == 2)


def test_without_held_out_images_the_test_split_is_only_watched(reader, partition):
    data = PartitionedDataModule(reader, partition, Preprocessing(CONFIG), test=reader, pool=reader)
    assert data.validation_roles == ("calibration", "gallery", "pool", "test")
    assert Counter(labels(data.val_dataloader()[3])) == Counter(reader.targets.tolist())
    with pytest.raises(InputError, match=r"set data\.holdout, .* or name data\.readers\.val"):
        data.held_out_dataloader()
    chosen = hold_out(reader.targets, partition.seen, 0.2)
    held_out = PartitionedDataModule(reader, partition, Preprocessing(CONFIG), test=reader, held_out=chosen)
    assert held_out.validation_roles == ("calibration", "gallery", "val")


def test_channels_that_the_model_does_not_take(reader, partition):
    config = {**CONFIG, "input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    data = PartitionedDataModule(reader, partition, Preprocessing(config), test=reader)
    with pytest.raises(
        InputError,
        match=r"images have 1 channels, the model takes 3; .*data\.mode .* model\.kwargs\.in_chans",
    ):
        next(iter(data.test_dataloader()))


def test_pool_hides_labels(reader, partition):
    data = PartitionedDataModule(reader, partition, Preprocessing(CONFIG), val=reader, pool=reader)
    assert data.validation_roles == ("calibration", "gallery", "pool", "val")
    _, _, pool, val = data.val_dataloader()
    assert set(labels(pool)) == {-1}
    assert ids(pool) == ids(val) == set(range(60))
    assert Counter(labels(val)) == Counter(reader.targets.tolist())


def test_folder_of_images_is_a_pool_whatever_its_folders_are_called(tmp_path, reader, partition):
    for i, folder in enumerate(("cat", "cat", "dog/deep")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(reader.images[i]).save(tmp_path / folder / f"{i}.PNG")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    pool = UnlabelledFolder(str(tmp_path), mode="L")
    assert pool.targets.tolist() == [-1, -1, -1]
    assert [pool.decode(i).mode for i in range(3)] == ["L"] * 3
    assert np.array_equal(np.asarray(pool.decode(0)), reader.images[0])
    assert UnlabelledFolder(str(tmp_path)).decode(0).mode == "RGB"
    data = PartitionedDataModule(reader, partition, Preprocessing(CONFIG), val=reader, pool=pool)
    assert labels(data.val_dataloader()[2]) == [-1, -1, -1]


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_folder_without_images(tmp_path, folder):
    with pytest.raises(InputError, match="no image in this folder"):
        UnlabelledFolder(str(tmp_path / folder))


def test_missing_split_is_named(reader, partition):
    data = PartitionedDataModule(reader, partition, Preprocessing(CONFIG))
    with pytest.raises(InputError, match=r"data\.readers\.test: no such split was given"):
        data.test_dataloader()


def test_evaluation_keeps_order_and_ids(datamodule, reader):
    batch_ids = torch.cat([batch["id"] for batch in datamodule.test_dataloader()])
    assert torch.equal(batch_ids, torch.arange(60))
    first = next(iter(datamodule.test_dataloader()))
    assert first["image"].shape == (16, 1, 8, 8)
    expected = (torch.from_numpy(reader.images[3].copy()).float() / 255 - 0.5) / 0.5
    torch.testing.assert_close(first["image"][3, 0], expected)


def test_iterations_per_epoch_draws_from_an_endless_stream(reader, partition):
    # Seven steps of 8 from 30 seen images: neither a pass nor a multiple of one.
    data = PartitionedDataModule(
        reader,
        partition,
        Preprocessing(CONFIG),
        loading=Loading(batch_size=8, iterations_per_epoch=7, seed=3),
    )
    loader = data.train_dataloader()
    drawn: list[int] = []
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        batches = [batch["id"].tolist() for batch in loader]
        assert [len(b) for b in batches] == [8] * 7
        drawn += [i for b in batches for i in b]
    # Concatenated permutations: every whole round of 30 holds each image once.
    for start in range(0, len(drawn) - 30, 30):
        assert len(set(drawn[start : start + 30])) == 30
    assert drawn[:30] != drawn[30:60]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_shards_neither_pad_nor_drop(world_size):
    shards = [list(ShardSampler(10, rank, world_size)) for rank in range(world_size)]
    assert sorted(i for shard in shards for i in shard) == list(range(10))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_endless_stream_without_overlap(world_size):
    length = positions_per_epoch(10, 12, world_size, iterations=5)
    assert length == 60
    whole = list(EndlessSampler(10, length, seed=5))
    shards = [list(EndlessSampler(10, length, 5, rank, world_size)) for rank in range(world_size)]
    assert [s for turn in zip(*shards, strict=True) for s in turn] == whole
    assert all(len(shard) == 60 // world_size for shard in shards)
    # A step's batch is the same samples, however many ranks share it.
    size = 12 // world_size
    steps = [[s for shard in shards for s in shard[i : i + size]] for i in range(0, 60 // world_size, size)]
    assert [sorted(step) for step in steps] == [sorted(whole[i : i + 12]) for i in range(0, 60, 12)]


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
        PartitionedDataModule(few, partition, Preprocessing(CONFIG))


def test_head_width_must_fit_the_readers(reader):
    with pytest.raises(InputError, match=r"data\.readers\.train names 6 classes, the head has 7"):
        PartitionedDataModule(reader, ClassPartition(7, [0]), Preprocessing(CONFIG))


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
