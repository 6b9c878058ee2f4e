"""The choice of seen classes that play the absent ones in pseudo cross-validation (PCV)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import comb

from ftc.errors import InputError
from ftc.partition import ClassPartition


@dataclass(frozen=True)
class FoldPlan:
    """The plan of the folds: how many there are, how each divides S, and how long it is trained.

    Attributes:
        folds: number K of folds.
        share: share of the seen classes that are pseudo-seen; at least one class stays on each side.
        seed: seed of the draws and of the folds' training.
        length: length of a fold's training, as a share of the epochs of fine-tuning; at least one epoch.

    Raises:
        InputError: no fold, a share outside (0, 1), a length outside (0, 1], or a seed that is no number of
            32 bits for every fold.
    """

    folds: int = 3
    share: float = 0.5
    seed: int = 0
    length: float = 1.0

    def __post_init__(self) -> None:
        if self.folds < 1:
            raise InputError(f"folds={self.folds}: give at least 1")
        if not 0 < self.share < 1:
            raise InputError(f"share={self.share}: give a share of the seen classes between 0 and 1")
        if not 0 <= self.seed <= 2**32 - self.folds:
            raise InputError(f"seed={self.seed}: give a whole number from 0 to {2**32 - self.folds}")
        if not 0 < self.length <= 1:
            raise InputError(f"length={self.length}: give a share of the epochs, above 0 and at most 1")

    def epochs(self, epochs: int) -> int:
        """The number of epochs that a fold takes, given that of fine-tuning."""
        return max(round(self.length * epochs), 1)

    def draw(self, partition: ClassPartition) -> list[list[int]]:
        """Draw the pseudo-seen classes of every fold; no two folds are alike while there are enough choices.

        Returns:
            Head columns, ascending, by fold.

        Raises:
            InputError: a single seen class.
        """
        seen = list(partition.seen)
        if len(seen) < 2:
            raise InputError(
                "pseudo cross-validation needs two seen classes, the partition has one; "
                "use another calibrator"
            )
        size = min(max(round(self.share * len(seen)), 1), len(seen) - 1)
        # Only random() is guaranteed to repeat across Python versions.
        generator = random.Random(self.seed)
        drawn: list[list[int]] = []
        while len(drawn) < self.folds:
            keys = {column: generator.random() for column in seen}
            choice = sorted(sorted(seen, key=keys.__getitem__)[:size])
            if choice not in drawn or len(drawn) >= comb(len(seen), size):
                drawn.append(choice)
        return drawn
