"""Lengths of epochs against their definition, and streams whose epochs leave a remainder to the next one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from ftc import InputError, PartitionedDataModule
from ftc.data import EndlessSampler, Loading, Preprocessing
from ftc.data.sampler import positions_per_epoch

CONFIG = {"input_size": (1, 8, 8), "mean": (0.5,), "std": (0.5,), "interpolation": "bilinear"}


def steps(size: int, share: int, rank: int, world_size: int, epoch: int = 0) -> list[list[int]]:
    """The positions in every step of a rank."""
    length = positions_per_epoch(size, share * world_size, world_size, None)
    sampler = EndlessSampler(size, length, rank=rank, world_size=world_size)
    sampler.set_epoch(epoch)
    return [[draw.position for draw in batch] for batch in BatchSampler(sampler, share, drop_last=False)]


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 4))
def test_an_epoch_is_a_pass_whose_last_step_has_two_images_a_process_or_is_the_only_one(size, share, world):
    ranks = [steps(size, share, rank, world) for rank in range(world)]
    counts = [[len(step) for step in of_rank] for of_rank in ranks]
    assert all(count == counts[0] for count in counts)
    # A pass, rounded up to whole rounds, in steps of the batch's share.
    whole = math.ceil(size / world)
    expected = [share] * (whole // share) + [whole % share] * (whole % share > 0)
    if len(expected) > 1 and expected[-1] < min(2, share):
        expected.pop()
    assert counts[0] == expected
    # The epochs of all ranks are the stream, without a gap.
    following = [steps(size, share, rank, world, 1) for rank in range(world)]
    read = [p for epoch in (ranks, following) for of_rank in epoch for step in of_rank for p in step]
    assert sorted(read) == list(range(2 * world * sum(expected)))


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 4), st.integers(1, 9))
def test_iterations_are_whole_batches_of_whatever_size(size, share, world, iterations):
    assert positions_per_epoch(size, share * world, world, iterations) == share * world * iterations


@pytest.mark.parametrize(
    ("size", "batch", "world", "length"),
    [
        (65, 64, 1, 64),
        (66, 64, 1, 66),
        (64, 64, 1, 64),
        (1, 64, 1, 1),
        (3, 1, 1, 3),
        (66, 64, 2, 64),
        (67, 64, 2, 68),
        (2, 64, 2, 2),
        (5, 2, 2, 6),
    ],
)
def test_lengths_by_hand(size, batch, world, length):
    assert positions_per_epoch(size, batch, world, None) == length


def test_a_batch_that_processes_cannot_share():
    with pytest.raises(InputError, match=r"data\.batch_size=4: is shared by 3 processes; choose a multiple"):
        positions_per_epoch(10, 4, 3, None)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_what_an_epoch_leaves_opens_the_next_one_also_after_an_interruption(reader, partition, taken):
    # 30 seen images in steps of 29.
    def data() -> PartitionedDataModule:
        return PartitionedDataModule(
            reader, partition, Preprocessing(CONFIG), loading=Loading(batch_size=29, seed=3)
        )

    loader = data().train_dataloader()
    epochs = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        epochs.append([batch["id"] for batch in loader])
    assert [[len(step) for step in epoch] for epoch in epochs] == [[29]] * 3
    drawn = torch.cat([step for epoch in epochs for step in epoch]).tolist()
    assert len(set(drawn[:30])) == 30 and len(set(drawn[30:60])) == 30

    first = data()
    loader = first.train_dataloader()
    for epoch in range(taken):
        loader.sampler.set_epoch(epoch)
        list(loader)
    again = data()
    again.load_state_dict(first.state_dict())
    resumed = again.train_dataloader()
    assert torch.equal(next(iter(resumed))["id"], epochs[taken][0])
