"""Streams that draw from two domains: shares, orders and images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftc import InputError, PartitionedDataModule
from ftc.data import ArrayReader, EndlessSampler, Loading, Preprocessing
from ftc.data.cache import ImageCache
from ftc.data.loaders import EndToEnd

CONFIG = {"input_size": (1, 8, 8), "mean": (0.5,), "std": (0.5,), "interpolation": "bilinear"}


def drawn(size, others, share, length, rank=0, world=1, read=0):
    sampler = EndlessSampler(size, length, 3, rank, world, others, share)
    sampler.resume(0, read)
    return list(sampler)


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 0.95), st.integers(1, 4), st.integers(0, 20))
def test_shares_are_even_and_each_domain_is_a_stream_of_permutations(size, others, share, world, read):
    length = 12 * 24 // world * world
    draws = drawn(size, others, share, length)
    assert [draw.position for draw in draws] == list(range(length))
    for end in range(1, length + 1):
        assert sum(draw.sample >= size for draw in draws[:end]) == math.floor(end * share)
    for count, kept in (
        (size, [d.sample for d in draws if d.sample < size]),
        (others, [d.sample - size for d in draws if d.sample >= size]),
    ):
        for start in range(0, len(kept) - count + 1, count):
            assert sorted(kept[start : start + count]) == list(range(count))
    # However many processes read it, and wherever one goes on, the stream is the same.
    ranks = [drawn(size, others, share, length, rank, world, read) for rank in range(world)]
    assert sorted(d for of_rank in ranks for d in of_rank) == sorted(draws[world * read :])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_rows_of_readers_end_to_end(sizes):
    loads = [lambda row, reader=reader: (reader, row) for reader in range(len(sizes))]
    load = EndToEnd(loads, sizes)
    expected = [(reader, row) for reader, size in enumerate(sizes) for row in range(size)]
    assert [load(row) for row in range(sum(sizes))] == expected


@pytest.fixture
def source():
    """60 images in six classes, all brighter than those of the target."""
    targets = np.arange(60) % 6
    images = np.full((60, 8, 8), 240, dtype=np.uint8) + targets[:, None, None].astype(np.uint8)
    return ArrayReader(images, targets, tuple("abcdef"))


@pytest.mark.parametrize("cached", [False, True])
def test_images_come_with_their_own_labels(reader, partition, source, cached, tmp_path):
    cache = ImageCache(tmp_path) if cached else None
    loading = Loading(batch_size=10, iterations_per_epoch=6, cache=cache)
    data = PartitionedDataModule(
        reader, partition, Preprocessing(CONFIG), source=source, rehearsal=0.4, loading=loading
    )
    batches = list(data.train_dataloader())
    image, target = (torch.cat([batch[name] for batch in batches]) for name in ("image", "target"))
    levels = ((image * 0.5 + 0.5) * 255).amax((1, 2, 3))
    rehearsed = levels > 235
    assert rehearsed.sum() == 24
    assert torch.equal((levels[rehearsed] - 240).round().long(), target[rehearsed])
    assert set(target[rehearsed].tolist()) == {*partition.seen, *partition.absent}
    assert set(target[~rehearsed].tolist()) == set(partition.seen)
    assert data.num_trained == 30
    assert data.trained_counts.tolist() == [10, 0, 10, 0, 10, 0]


def test_a_pass_is_one_over_the_targets_images(reader, partition, source):
    data = PartitionedDataModule(
        reader, partition, Preprocessing(CONFIG), source=source, rehearsal=0.5, loading=Loading(batch_size=10)
    )
    assert sum(len(batch["target"]) for batch in data.train_dataloader()) == 60


def test_a_source_without_the_classes_is_one_line(reader, partition):
    other = ArrayReader(np.zeros((3, 8, 8), dtype=np.uint8), np.full(3, 3), tuple("abcdef"))
    data = PartitionedDataModule(reader, partition, Preprocessing(CONFIG), source=other, rehearsal=0.5)
    with pytest.raises(InputError, match=r"data\.readers\.source: has no image of a class to rehearse"):
        data.train_dataloader()
