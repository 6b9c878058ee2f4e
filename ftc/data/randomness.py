"""Randomness as a pure function of a few numbers: nothing depends on what was drawn before.

So an interrupted training goes on as if it had not been, and neither the number of loader processes nor what
else draws random numbers changes an image.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def mixed(*numbers: int) -> int:
    """32 bits that stand for whole numbers ≥ 0, in their order."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_transforms(*numbers: int) -> None:
    """Seed what transforms of images draw from on the CPU: torch's, NumPy's and Python's generators."""
    seed = mixed(*numbers)
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever is seeded and drawn inside, the generators go on afterwards as if nothing had been."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
