"""The data of the toy example: points of a plane in four classes, a Gaussian in each quadrant."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ftc.data.readers import ArrayReader

# Quadrants of the source domain, against the clock.
CLASS_NAMES = ("NE", "NW", "SW", "SE")

# A pixel's 256 values are the coordinates from −REACH to REACH, whatever lies beyond being moved to the edge.
REACH = 4.0


def points(
    seed: int,
    per_class: int,
    spread: float,
    turn: float = 0.0,
    shift: Sequence[float] = (0.0, 0.0),
    classes: Sequence[int] = range(4),
) -> ArrayReader:
    """Points as images of 1×2 grey pixels: x and y.

    Readers give images of 8 bits, so points lie on a grid of 256 × 256. A model whose preprocessing has mean
    0.5 and standard deviation 0.125 sees the coordinates again.

    Args:
        seed: seed of the points.
        per_class: points of each class.
        spread: standard deviation of a class in each direction; the middles are √2 from the origin.
        turn: angle by which the domain is turned around the origin against the clock (degrees).
        shift: what is added to x and y afterwards.
        classes: the classes to draw; all four name classes.
    """
    generator = np.random.default_rng(seed)
    middles = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    drawn = middles[:, None] + spread * generator.standard_normal((4, per_class, 2))
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    plane = drawn @ np.array([(cos, sin), (-sin, cos)]) + np.asarray(shift)
    pixels = np.rint((plane / REACH + 1) * 127.5).clip(0, 255).astype(np.uint8)
    chosen = list(classes)
    return ArrayReader(pixels[chosen].reshape(-1, 1, 2), np.repeat(chosen, per_class), CLASS_NAMES)
