"""A sampler whose order is a pure function of seed and position, and one that shards without loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from ftc.errors import InputError


class Draw(NamedTuple):
    """A sample, and its position in the stream, which seeds its augmentation."""

    sample: int
    position: int


class EndlessSampler(Sampler[Draw]):
    """An endless shuffled stream, cut into epochs: concatenated permutations of the data.

    An epoch of ``length`` positions starts where the one before ended, so that epochs may be shorter or
    longer than a pass (the paper's are 500 iterations: docs/definitions.md, "Benchmarks and recipe"). Ranks
    take turns: rank r of w reads positions r, r + w, …, without overlap.

    Args:
        size: number of samples in the data.
        length: positions per epoch, over all ranks; a multiple of ``world_size``.
        seed: together with the position it determines the sample.
        rank: index of this process.
        world_size: number of processes.
        others: number of further samples, which follow the data's; they are a stream of their own.
        share: share of the positions that draw from that stream, evenly spread.
    """

    def __init__(
        self,
        size: int,
        length: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        others: int = 0,
        share: float = 0.0,
    ) -> None:
        self.size = size
        self.length = length
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.others = others
        self.share = share
        self.epoch = 0
        self._read = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; Lightning calls this before every epoch."""
        self.epoch = epoch

    def resume(self, epoch: int, read: int) -> None:
        """Let the next iteration, and no other, begin in ``epoch`` after ``read`` draws of this rank."""
        self.epoch, self._read = epoch, read

    def __len__(self) -> int:
        return len(range(self.rank, self.length, self.world_size))

    def __iter__(self) -> Iterator[Draw]:
        start, read = self.epoch * self.length, self._read
        self._read = 0
        return self._draws(range(start + self.rank, start + self.length, self.world_size)[read:])

    def _draws(self, positions: range) -> Iterator[Draw]:
        data, others = _Permutations(self.size, self.seed), _Permutations(self.others, self.seed, 1)
        for position in positions:
            before, after = (math.floor(p * self.share) for p in (position, position + 1))
            if before == after:
                yield Draw(data[position - before], position)
            else:
                yield Draw(self.size + others[before], position)


class _Permutations:
    """Concatenated permutations of whole numbers below a size, told by a seed and a stream's number."""

    def __init__(self, size: int, seed: int, stream: int = 0) -> None:
        self.size = size
        self.seed = seed
        self.stream = stream
        self._round, self._order = -1, np.empty(0, dtype=np.int64)

    def __getitem__(self, index: int) -> int:
        round_, place = divmod(index, self.size)
        if round_ != self._round:
            # torch's CPU generator reads only 32 bits of a seed, too few to mix the numbers safely. NumPy's
            # takes trailing zeros for none, so the stream comes last.
            self._round = round_
            numbers = np.random.default_rng((self.seed, round_, self.stream))
            self._order = numbers.permutation(self.size)
        return int(self._order[place])


PADDING = -1


class ShardSampler(Sampler[int]):
    """Every sample exactly once over all ranks, in order; shards differ by one sample at most.

    Shards of unequal length are safe under DDP, where evaluation forwards do not communicate. Under FSDP
    every forward gathers weights, so ranks need equally many batches: there use ``padded``, which ends a
    shard that is one sample short with `PADDING`.
    """

    def __init__(self, size: int, rank: int = 0, world_size: int = 1, padded: bool = False) -> None:
        self.indices: Sequence[int] = range(rank, size, world_size)
        if padded and len(self.indices) * world_size < size:
            self.indices = [*self.indices, PADDING]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


def batch_share(batch_size: int, world_size: int) -> int:
    """The number of samples that each process has of a training batch.

    Raises:
        InputError: the processes cannot share the batch evenly.
    """
    if batch_size % world_size:
        raise InputError(
            f"data.batch_size={batch_size}: is shared by {world_size} processes; choose a multiple"
        )
    return batch_size // world_size


def positions_per_epoch(size: int, batch_size: int, world_size: int, iterations: int | None) -> int:
    """Positions of the stream per epoch, over all ranks: ``iterations`` batches, or about one pass for None.

    A pass is rounded up to whole rounds of the ranks, so that all take the same number of steps. A last step
    of a single image per rank is left to the next epoch if it is not the only step: batch norm cannot train
    on it.
    """
    if iterations is not None:
        return iterations * batch_size
    share = batch_share(batch_size, world_size)
    of_rank = math.ceil(size / world_size)
    if of_rank > share > 1 and of_rank % share == 1:
        of_rank -= 1
    return of_rank * world_size
