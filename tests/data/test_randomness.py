"""Training batches are a function of seed and position: of no process, loader or earlier draw."""

from __future__ import annotations

import random
from itertools import islice, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from ftc import PartitionedDataModule
from ftc.data import Loading, Preprocessing
from ftc.data.randomness import mixed, seed_transforms, undisturbed
from tests.data.test_datamodule import CONFIG


class Noise:
    """Draws from every generator that a transform may use."""

    def __call__(self, image):
        values = np.asarray(image, dtype=np.float64) + 40 * np.random.rand() + 40 * random.random()
        return v2.functional.to_pil_image((values + 40 * float(torch.rand(()))).astype(np.uint8)[..., None])


def stream(reader, partition, seed=3, rank=0, world_size=1, **arguments):
    """A training loader, as a process of several has it."""
    augmentation = [Noise(), v2.RandomAffine(30), v2.ColorJitter(0.5, 0.5), v2.RandomHorizontalFlip()]
    preprocessing = Preprocessing(CONFIG, augmentation)
    arguments = {"batch_size": 6, "iterations_per_epoch": 9, **arguments}
    loading = Loading(seed=seed, **arguments)
    data = PartitionedDataModule(reader, partition, preprocessing, loading=loading)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, num_devices=1, strategy=strategy)
    return data.train_dataloader()


def same(batches, others) -> bool:
    pairs = list(zip(batches, others, strict=True))
    return all(torch.equal(a[name], b[name]) for a, b in pairs for name in ("image", "id", "position"))


def test_neither_workers_nor_earlier_draws_change_a_batch(reader, partition):
    expected = list(stream(reader, partition))
    torch.rand(5), np.random.rand(5), random.random()
    assert same(expected, stream(reader, partition))
    assert same(expected, stream(reader, partition, num_workers=2))
    assert not same(expected, stream(reader, partition, seed=4))
    positions = torch.cat([batch["position"] for batch in expected])
    assert torch.equal(positions, torch.arange(54))


def test_every_pass_augments_afresh(reader, partition):
    images = {}
    for batch in stream(reader, partition):
        for sample, image in zip(batch["id"].tolist(), batch["image"], strict=True):
            images.setdefault(sample, []).append(image)
    # 30 seen images, 54 positions.
    twice = [views for views in images.values() if len(views) > 1]
    assert len(twice) == 24
    assert not any(torch.equal(*views) for views in twice)


def test_loading_leaves_the_generators_alone(reader, partition):
    def draws():
        return float(torch.rand(())), np.random.rand(), random.random()

    seed_transforms(0)
    loader = iter(stream(reader, partition))
    next(loader)
    expected = draws()
    seed_transforms(0)
    # What torch's loader itself draws for its workers' seeds is the same in both.
    loader = iter(stream(reader, partition))
    next(loader), next(loader), next(loader)
    assert draws() == expected
    with undisturbed():
        seed_transforms(9)
        inside = draws()
    assert draws() != inside


def test_processes_share_the_batches_of_one(reader, partition):
    whole = list(stream(reader, partition))
    halves = [list(stream(reader, partition, rank=rank, world_size=2)) for rank in range(2)]
    for batch, first, second in zip(whole, *halves, strict=True):
        position = torch.cat([first["position"], second["position"]])
        order = position.argsort()
        assert torch.equal(position[order], batch["position"])
        assert torch.equal(torch.cat([first["image"], second["image"]])[order], batch["image"])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 5, 9])
def test_a_stream_goes_on_where_its_state_was_kept(reader, partition, workers, taken):
    whole = stream(reader, partition)
    epochs = []
    for epoch in (1, 2):
        whole.sampler.set_epoch(epoch)
        epochs.append(list(whole))
    first = stream(reader, partition, num_workers=workers)
    first.sampler.set_epoch(1)
    list(islice(iter(first), taken))
    again = stream(reader, partition, num_workers=workers)
    again.load_state_dict(first.state_dict())
    # A finished epoch goes on with the next one.
    if taken < 9:
        assert same(again, epochs[0][taken:])
        again.sampler.set_epoch(2)
    assert same(again, epochs[1])


def test_seeds_are_far_apart():
    seeds = [mixed(seed, position) for seed in range(30) for position in range(100)]
    assert len(set(seeds)) == len(seeds)
    assert mixed(1, 2) != mixed(2, 1)
    bits = sum(bin(a ^ b).count("1") for a, b in pairwise(seeds)) / (len(seeds) - 1)
    assert bits == pytest.approx(16, abs=0.3)
