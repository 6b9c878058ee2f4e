from __future__ import annotations

import multiprocessing
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import v2

from ftc import InputError, PartitionedDataModule
from ftc.data import (
    ArrayReader,
    ClassFolders,
    ImageCache,
    Loading,
    Preprocessing,
    cache,
    checks,
)
from ftc.data.decode import UnreadableImage
from ftc.data.randomness import Draws

SQUASH = {
    "input_size": (3, 28, 28),
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "squash",
}
CENTRE = {**SQUASH, "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"}
GREY = {**SQUASH, "input_size": (1, 28, 28), "mean": (0.5,), "std": (0.25,)}
AUGMENTATION = [
    v2.RandomResizedCrop(28, scale=(0.7, 1.0)),
    v2.RandomHorizontalFlip(),
    v2.ColorJitter(0.3, 0.3, 0.3, 0.3),
    v2.RandomGrayscale(0.1),
]


def write_images(folder, count=12, classes="abcdef"):
    """Photographs of 30 to 70 pixels a side, in class folders."""
    generator = np.random.default_rng(0)
    for i in range(count):
        width, height = generator.integers(30, 70, 2)
        coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        path = folder / classes[i % len(classes)] / f"{i:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "data")


@pytest.fixture
def decoded(monkeypatch):
    """Rows that any reader of class folders decodes."""
    rows = []
    whole = ClassFolders.decode
    monkeypatch.setattr(ClassFolders, "decode", lambda self, i: rows.append(i) or whole(self, i))
    return rows


@pytest.fixture
def stored(tmp_path):
    return ImageCache(tmp_path / "cache")


def tensors(loader) -> dict[str, torch.Tensor]:
    batches = list(loader)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@pytest.mark.parametrize("config", [SQUASH, CENTRE, GREY], ids=["squash", "centre", "grey"])
def test_evaluation_is_the_same_bit_for_bit(folder, stored, partition, config):
    reader = ClassFolders(folder, mode="RGB" if len(config["mean"]) == 3 else "L")
    plain, cached = (
        PartitionedDataModule(
            reader, partition, Preprocessing(config), test=reader, loading=Loading(cache=c, batch_size=5)
        )
        for c in (None, stored)
    )
    expected = tensors(plain.test_dataloader())
    for data in (cached, cached):
        for name, value in tensors(data.test_dataloader()).items():
            assert torch.equal(value, expected[name])
    timms = timm.data.create_transform(**config)
    assert torch.equal(expected["image"], torch.stack([timms(reader.decode(i)) for i in range(12)]))
    assert expected["image"].is_contiguous()


def test_images_are_decoded_once_a_form(folder, stored, partition, decoded):
    reader = ClassFolders(folder)
    for _ in range(2):
        data = PartitionedDataModule(
            reader, partition, Preprocessing(SQUASH, AUGMENTATION), test=reader, loading=Loading(cache=stored)
        )
        for _ in range(2):
            list(data.test_dataloader())
            list(data.train_dataloader())
            list(data.calibration_dataloader())
    seen = torch.isin(reader.targets, torch.tensor(partition.seen)).nonzero()[:, 0].tolist()
    # For training only what is trained on.
    assert sorted(decoded) == sorted([*range(12), *seen])


def test_images_are_known_by_content_not_by_name(folder, stored, decoded):
    form = Preprocessing(SQUASH).stored
    before = stored.store(ClassFolders(folder), form)
    assert sorted(decoded) == list(range(12))
    (folder / "a" / "000.jpg").rename(folder / "a" / "elsewhere.jpg")
    (folder / "c" / "copy.jpg").write_bytes((folder / "c" / "002.jpg").read_bytes())
    reader = ClassFolders(folder)
    after = stored.store(reader, form)
    assert len(decoded) == 12
    assert np.array_equal(after[reader.files.index("a/elsewhere.jpg")], before[0])
    assert np.array_equal(after[reader.files.index("c/copy.jpg")], after[reader.files.index("c/002.jpg")])
    Image.new("RGB", (40, 40), "red").save(folder / "a" / "elsewhere.jpg")
    changed = stored.store(ClassFolders(folder), form)[reader.files.index("a/elsewhere.jpg")]
    assert len(decoded) == 13
    assert (changed[..., 0] > 250).all()
    # Another geometry, another mode: other pixels.
    stored.store(ClassFolders(folder), Preprocessing(CENTRE).stored)
    assert stored.store(ClassFolders(folder, mode="L"), form)[0].shape == (28, 28, 1)


def test_images_in_memory_are_known_by_their_pixels(stored, reader, partition):
    config = {**GREY, "input_size": (1, 8, 8)}
    expected, data = (
        PartitionedDataModule(reader, partition, Preprocessing(config), test=reader, loading=Loading(cache=c))
        for c in (None, stored)
    )
    assert torch.equal(tensors(data.test_dataloader())["image"], tensors(expected.test_dataloader())["image"])
    again = ArrayReader(reader.images[::-1].copy(), reader.targets.flip(0), reader.class_names)
    form = Preprocessing(config).stored
    files = sorted(stored.folder.rglob("*.u8"))
    assert np.array_equal(stored.store(again, form)[0], stored.store(reader, form)[59])
    assert sorted(stored.folder.rglob("*.u8")) == files


def test_training_images_keep_their_proportions_and_are_never_enlarged(stored):
    images = [
        np.zeros((64, 96, 3), np.uint8),
        np.zeros((20, 90, 3), np.uint8),
        np.zeros((40, 33, 3), np.uint8),
    ]
    form = Preprocessing(SQUASH).stored_for_training
    kept = [stored.store(ArrayReader(image[None], [0], ["a"]), form)[0].shape for image in images]
    # 28 · 8 / 7 = 32
    assert kept == [(32, 48, 3), (20, 90, 3), (39, 32, 3)]


def test_unreadable_image_is_named(folder, stored):
    (folder / "b" / "001.jpg").write_bytes(b"")
    with pytest.raises(UnreadableImage, match=r"b/001\.jpg: cannot be read \(empty file\)"):
        stored.store(ClassFolders(folder), Preprocessing(SQUASH).stored)


class Unnoticed(ClassFolders):
    """Files of one folder, whose changes are not seen."""

    def stamp(self, index):
        return str(index)


def test_image_that_breaks_after_its_check_is_named(folder, stored):
    reader = Unnoticed(folder)
    checks.check_images({"train": reader}, "error", stored.folder)
    (folder / reader.files[3]).write_bytes(b"bad")
    with pytest.raises(UnreadableImage, match=r"b/007\.jpg: cannot be read \(no image format"):
        stored.store(reader, Preprocessing(SQUASH).stored, num_workers=1)


def test_finished_shards_survive_an_interruption(folder, tmp_path, decoded):
    stored = ImageCache(tmp_path / "cache", images_per_file=4)
    reader = ClassFolders(folder)
    form = Preprocessing(SQUASH).stored

    def interrupted(image):
        if len(decoded) == 10:
            raise KeyboardInterrupt
        return form.resize(image)

    with pytest.raises(KeyboardInterrupt):
        stored.store(reader, cache.Form(form.key, interrupted))
    assert len(list(stored.folder.rglob("*.u8"))) == 2
    assert len(list((stored.folder / "images").rglob(".*"))) == 0
    decoded.clear()
    images = stored.store(reader, form)
    assert sorted(decoded) == [8, 9, 10, 11]
    assert np.array_equal(images[0], np.asarray(form.resize(reader.decode(0))))


def test_lost_shards_are_made_again(folder, stored, decoded):
    form = Preprocessing(SQUASH).stored
    before = stored.store(ClassFolders(folder), form)[5].copy()
    for shard in stored.folder.rglob("*.u8"):
        shard.unlink()
    assert np.array_equal(stored.store(ClassFolders(folder), form)[5], before)
    assert len(decoded) == 24


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "gone"])
@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_shards_are_told_and_made_again(folder, stored, partition, damage, workers):
    def batches():
        data = PartitionedDataModule(
            ClassFolders(folder),
            partition,
            Preprocessing(SQUASH),
            test=ClassFolders(folder),
            loading=Loading(cache=stored, num_workers=workers),
        )
        return tensors(data.test_dataloader())["image"]

    before = batches()
    loader = PartitionedDataModule(
        ClassFolders(folder), partition, Preprocessing(SQUASH), loading=Loading(cache=stored)
    ).calibration_dataloader()
    (shard,) = stored.folder.rglob("*.u8")
    content = shard.read_bytes()
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(content[:-1] if damage == "truncated" else bytes([content[0] ^ 64]) + content[1:])
    message = r"\.u8: (was damaged, and is removed|is gone); the same command makes it again"
    with pytest.raises(InputError, match=message):
        tensors(loader)
        batches()
    assert not shard.exists()
    assert torch.equal(batches(), before)
    assert shard.read_bytes() == content


def build(folder, stored, sums):
    """Another process that builds a cache and reports the sum of its pixels."""

    def work():
        reader = ClassFolders(folder)
        images = stored.store(reader, Preprocessing(SQUASH).stored)
        sums.put(sum(int(images[row].sum()) for row in range(len(reader.files))))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


@pytest.mark.filterwarnings("ignore:.*use of fork")
def test_a_killed_build_and_two_at_once(tmp_path):
    folder, to = write_images(tmp_path / "data", 200), tmp_path / "cache"
    stored = ImageCache(to, images_per_file=4)
    sums = multiprocessing.get_context("fork").Queue()
    killed = build(folder, stored, sums)
    while not list(to.rglob("[!.]*.u8")):
        assert killed.is_alive()
    killed.kill()
    killed.join()
    finished = len(list(to.rglob("[!.]*.u8")))
    several = [build(folder, stored, sums) for _ in range(2)]
    form, reader = Preprocessing(SQUASH).stored, ClassFolders(folder)
    expected = sum(int(np.asarray(form.resize(reader.decode(i))).sum()) for i in range(200))
    assert [sums.get(timeout=60) for _ in several] == [expected] * 2
    assert 1 <= finished < len(list(to.rglob("[!.]*.u8"))) == 50


def test_stored_images_are_read_in_workers(folder, stored, partition):
    reader = ClassFolders(folder)
    images = stored.store(reader, Preprocessing(SQUASH).stored)
    again = pickle.loads(pickle.dumps(images))
    assert all(np.array_equal(again[i], images[i]) for i in range(12))
    data = PartitionedDataModule(
        reader,
        partition,
        Preprocessing(SQUASH, AUGMENTATION),
        test=reader,
        loading=Loading(cache=stored, batch_size=4, num_workers=2),
    )
    expected = PartitionedDataModule(reader, partition, Preprocessing(SQUASH), test=reader)
    assert torch.equal(tensors(data.test_dataloader())["image"], tensors(expected.test_dataloader())["image"])
    loader = data.train_dataloader()
    first = sorted_by_id(tensors(loader))
    assert torch.equal(first["image"], sorted_by_id(tensors(loader))["image"])
    loader.sampler.set_epoch(1)
    second = sorted_by_id(tensors(loader))
    assert torch.equal(first["id"], second["id"])
    # Every epoch augments every image afresh.
    assert not (first["image"] == second["image"]).flatten(1).all(1).any()


def sorted_by_id(batch):
    order = batch["id"].argsort()
    return {name: value[order] for name, value in batch.items()}


@pytest.mark.parametrize(
    "augmentation",
    [
        AUGMENTATION,
        [transforms.RandomResizedCrop(28), transforms.ColorJitter(0.2)],
        [v2.RandomAffine(10), lambda image: image.transpose(Image.Transpose.ROTATE_90)],
        [],
    ],
    ids=["published", "torchvision v1", "images only", "none"],
)
@pytest.mark.parametrize("config", [SQUASH, CENTRE, GREY], ids=["squash", "centre", "grey"])
def test_cached_training_images_look_like_others(folder, stored, partition, config, augmentation):
    reader = ClassFolders(folder, mode="RGB" if len(config["mean"]) == 3 else "L")
    plain, cached = (
        PartitionedDataModule(
            reader, partition, Preprocessing(config, augmentation), loading=Loading(cache=c)
        )
        for c in (None, stored)
    )
    plain, cached = (sorted_by_id(tensors(data.train_dataloader())) for data in (plain, cached))
    assert cached["image"].shape == plain["image"].shape
    assert cached["image"].dtype == torch.float32
    assert torch.equal(cached["target"], plain["target"])
    if not augmentation:
        # The same view, once more resampled.
        assert (cached["image"] - plain["image"]).abs().mean() < 0.05


@pytest.mark.parametrize("cached", [True, False])
def test_batches_are_augmented_where_they_lie(folder, stored, partition, cached):
    data = PartitionedDataModule(
        ClassFolders(folder),
        partition,
        Preprocessing(SQUASH, AUGMENTATION),
        loading=Loading(cache=stored if cached else None),
    )

    def loader(device):
        strategy = SimpleNamespace(root_device=torch.device(device))
        data.trainer = SimpleNamespace(global_rank=0, world_size=1, num_devices=1, strategy=strategy)
        return data.train_dataloader()

    on_cpu = next(DataLoader.__iter__(loader("cpu")))["image"]
    # PyTorch's device without memory stands in for an accelerator: its batches come there half augmented.
    shipped = next(DataLoader.__iter__(loader("meta")))["image"]
    assert (shipped.dtype, shipped.device.type) == (torch.uint8, "cpu")
    assert not torch.equal(shipped, on_cpu)
    image = next(iter(loader("meta")))["image"]
    assert (image.shape, image.dtype, image.device.type) == ((6, 3, 28, 28), torch.float32, "meta")
    # What is left to do there is what the CPU's workers have done.
    draws = Draws(0, range(6), 0)
    assert torch.equal(data.preprocessing.jittered(shipped, draws), on_cpu)
