"""Randomness as a pure function of a few numbers: nothing depends on what was drawn before.

An interrupted training therefore goes on as if it had never stopped, and neither the number of loader
processes nor other random draws change an image.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def mixed(*numbers: int) -> int:
    """A 32-bit seed made of whole numbers ≥ 0; their order matters."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_transforms(*numbers: int) -> None:
    """Seed the CPU generators that image transforms draw from: torch's, NumPy's and Python's."""
    seed = mixed(*numbers)
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Restore the CPU generators of torch, NumPy and Python when the block ends."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


class Draws:
    """The random numbers of a training batch.

    An image's depend on seed, position and stage alone: neither on the images beside it nor on the number of
    processes that share the batch.

    Args:
        seed: seed of the stream.
        positions: the images' positions in the stream.
        first: the position at which the batch starts, over all processes.
        stage: number of the stage that draws; every stage has numbers of its own.
    """

    def __init__(self, seed: int, positions: Sequence[int], first: int, stage: int = 0) -> None:
        self.seed = seed
        self.positions = list(positions)
        self.first = first
        self.stage = stage
        self._drawn = 0
        key = np.random.SeedSequence((seed, stage)).generate_state(1, np.uint64)
        self._keys = _scrambled(key + _scrambled(np.array(self.positions, dtype=np.uint64)))

    def of(self, rows: Sequence[int]) -> Draws:
        """The draws of some of the images, from the beginning."""
        return Draws(self.seed, [self.positions[row] for row in rows], self.first, self.stage)

    def at(self, stage: int) -> Draws:
        """The draws of the same images in another stage."""
        return Draws(self.seed, self.positions, self.first, stage)

    def uniform(self, low: float, high: float) -> Tensor:
        """The next number from [low, high) of every image: float32 (N,)."""
        self._drawn += 1
        bits = _scrambled(self._keys + np.uint64(self._drawn)) >> np.uint64(40)
        return torch.from_numpy(low + (high - low) * (bits * 2.0**-24)).float()

    def order(self, size: int) -> list[int]:
        """An order of ``size`` things, one and the same for all images of the batch."""
        return np.random.default_rng((self.seed, self.first)).permutation(size).tolist()


def _scrambled(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64 of uint64 numbers: each gives 64 bits that look independent of all others'."""
    mixed = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
