from __future__ import annotations

import re

import pytest

from ftc import ClassPartition, InputError


def test_groups_cover_the_head_once():
    p = ClassPartition(num_classes=7, seen=[5, 1], absent=[0, 6])
    assert p.columns("seen") == (1, 5)
    assert p.columns("absent") == (0, 6)
    assert p.columns("others") == (2, 3, 4)
    assert p.columns("fixed") == (1, 2, 3, 4, 5)
    assert sorted(p.seen + p.absent + p.others) == list(p.columns("all"))


def test_no_absent_means_none():
    p = ClassPartition.random(5, num_seen=3, num_absent=0, seed=1)
    assert p.absent == ()
    assert len(p.others) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seen": [0, 99]}, "column 99 is outside the head; choose from 0 to 9"),
        ({"seen": [-1]}, "column -1 is outside"),
        ({"seen": [1, 1]}, "column 1 is listed twice"),
        ({"seen": []}, "no column"),
        ({"seen": [1, 2], "absent": [2, 3]}, "absent: column 2 is seen as well"),
        ({"seen": [1.5]}, "column 1.5 is outside"),
    ],
)
def test_bad_partitions_are_named(arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        ClassPartition(num_classes=10, **arguments)


def test_random_splits_are_disjoint_repeatable_and_differ_by_seed():
    splits = [ClassPartition.random(10, 5, seed=seed) for seed in range(20)]
    assert splits == [ClassPartition.random(10, 5, seed=seed) for seed in range(20)]
    assert all(not set(p.seen) & set(p.absent) and len(p.seen) == len(p.absent) == 5 for p in splits)
    assert len({p.seen for p in splits}) > 15


def test_random_split_of_seed_0_never_changes():
    # Published results name splits by seed: a change here would silently rename them.
    assert ClassPartition.random(10, 5, seed=0).seen == (2, 3, 5, 7, 8)


def test_too_many_classes():
    with pytest.raises(InputError, match="num_seen=4 and num_absent=3 do not fit a head of 6"):
        ClassPartition.random(6, 4, 3)


def test_digest_tells_partitions_apart():
    a = ClassPartition(4, [0, 1], [2, 3]).record()
    b = ClassPartition(4, [0, 1], [2]).record()
    assert a.sha256 == ClassPartition(4, [1, 0], [3, 2]).record().sha256 != b.sha256
