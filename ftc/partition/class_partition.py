"""The partition of the head's columns into seen, absent and others (no torch, for configuration checks)."""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ftc.errors import InputError

Group = Literal["seen", "absent", "others", "fixed", "all"]


def class_name(name: str) -> str:
    """A class name in Unicode's composed form: a folder's name and a list's may spell é in two ways."""
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class ClassPartition:
    """A partition of the head's columns, Y = S ∪ U ∪ others.

    Labels are head columns everywhere; subsetting never relabels.

    Args:
        num_classes: width C of the head.
        seen: S, columns with target-domain training data; at least one.
        absent: U, columns that the target domain asks for without giving training data; may be empty.

    Raises:
        InputError: a column out of range, named twice, or in both groups; no seen column.

    >>> p = ClassPartition(num_classes=6, seen=[4, 0], absent=[1, 2])
    >>> p.seen, p.absent, p.others, p.fixed
    ((0, 4), (1, 2), (3, 5), (0, 3, 4, 5))
    """

    num_classes: int
    seen: tuple[int, ...]
    absent: tuple[int, ...] = ()

    def __init__(self, num_classes: int, seen: Iterable[int], absent: Iterable[int] = ()) -> None:
        if num_classes < 1:
            raise InputError(f"num_classes={num_classes}: a head has at least one column")
        groups = {"seen": list(seen), "absent": list(absent)}
        for name, columns in groups.items():
            for column in columns:
                if isinstance(column, bool) or column != int(column) or not 0 <= column < num_classes:
                    raise InputError(
                        f"{name}: column {column} is outside the head; choose from 0 to {num_classes - 1}"
                    )
            twice = [column for column, count in Counter(columns).items() if count > 1]
            if twice:
                raise InputError(f"{name}: column {min(twice)} is listed twice; list it once")
        if not groups["seen"]:
            raise InputError("seen: no column; name at least one class with training data")
        both = sorted(set(groups["seen"]) & set(groups["absent"]))
        if both:
            raise InputError(f"absent: column {both[0]} is seen as well; leave it in one of the two")
        object.__setattr__(self, "num_classes", int(num_classes))
        object.__setattr__(self, "seen", tuple(sorted(int(c) for c in groups["seen"])))
        object.__setattr__(self, "absent", tuple(sorted(int(c) for c in groups["absent"])))

    @classmethod
    def random(
        cls,
        num_classes: int,
        num_seen: int,
        num_absent: int | None = None,
        seed: int = 0,
        among: Sequence[int] | None = None,
    ) -> ClassPartition:
        """Draw S and U at random.

        Args:
            num_classes: width C of the head.
            num_seen: number of seen classes.
            num_absent: number of absent classes; None makes every candidate that is not seen absent.
            seed: seed of the draw.
            among: columns to choose from; all by default.

        Raises:
            InputError: more classes asked for than there are.
        """
        candidates = range(num_classes) if among is None else among
        size = len(candidates)
        if num_absent is None:
            num_absent = size - num_seen
        if num_seen < 1 or num_absent < 0 or num_seen + num_absent > size:
            of = f"a head of {num_classes}" if size == num_classes else f"the {size} classes with images"
            raise InputError(
                f"num_seen={num_seen} and num_absent={num_absent} do not fit {of}; "
                f"choose num_seen from 1 to {size} and at most {size} together"
            )
        # Only random() is guaranteed to repeat across Python versions; sample() and shuffle() are not.
        generator = random.Random(seed)
        keys = [generator.random() for _ in range(size)]
        order = [candidates[i] for i in sorted(range(size), key=keys.__getitem__)]
        return cls(num_classes, order[:num_seen], order[num_seen : num_seen + num_absent])

    @cached_property
    def others(self) -> tuple[int, ...]:
        """Columns that are neither seen nor absent."""
        return tuple(without(range(self.num_classes), (*self.seen, *self.absent)))

    @cached_property
    def fixed(self) -> tuple[int, ...]:
        """F: every column but U. γ never touches them."""
        return tuple(sorted({*self.seen, *self.others}))

    def groups(self) -> tuple[str, ...]:
        """The group of every column: ``seen``, ``absent`` or ``others``."""
        names = ["others"] * self.num_classes
        for group in ("seen", "absent"):
            for column in self.columns(group):
                names[column] = group
        return tuple(names)

    def columns(self, group: Group) -> tuple[int, ...]:
        """The ascending columns of a group."""
        if group == "all":
            return tuple(range(self.num_classes))
        return tuple(getattr(self, group))

    def record(self) -> PartitionRecord:
        """The partition as files keep it."""
        groups = {"seen": self.seen, "absent": self.absent, "others": self.others}
        content = {"num_classes": self.num_classes, **{name: list(ids) for name, ids in groups.items()}}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return PartitionRecord(num_classes=self.num_classes, sha256=digest, **groups)


def without(columns: Iterable[int], left_out: Iterable[int]) -> list[int]:
    """The columns, in order, but for some."""
    some = set(left_out)
    return [column for column in columns if column not in some]


class PartitionRecord(BaseModel):
    """A partition in files, with a digest that makes it citable.

    Attributes:
        num_classes: width C of the head.
        seen, absent, others: head columns, ascending.
        sha256: digest of the other fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: int
    seen: tuple[int, ...]
    absent: tuple[int, ...]
    others: tuple[int, ...]
    sha256: str

    def partition(self) -> ClassPartition:
        """The partition that was written."""
        return ClassPartition(self.num_classes, self.seen, self.absent)
