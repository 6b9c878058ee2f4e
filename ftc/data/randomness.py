"""Randomness as a pure function of a few numbers: nothing depends on what was drawn before.

An interrupted training therefore goes on as if it had never stopped, and neither the number of loader
processes nor other random draws change an image.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


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
