"""Cosines of the head's updates against loops over pairs of classes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftc.functional import update_cosines
from ftc.functional.updates import MOST_CELLS


def heads(seed: int, classes: int, unmoved: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    source, moved = torch.randn(2, classes, 4, generator=generator)
    moved[unmoved] = source[unmoved]
    return source, moved


def mean_cosine(update: torch.Tensor, pairs: list[tuple[int, int]]) -> float:
    values = [
        float(update[i] @ update[j] / (update[i].norm() * update[j].norm()))
        for i, j in pairs
        if update[i].any() and update[j].any()
    ]
    return sum(values) / len(values) if values else math.nan


def pairs_of(first: list[int], second: list[int]) -> list[tuple[int, int]]:
    return [(i, j) for i in first for j in second if i != j]


@given(st.integers(0, 99), st.integers(0, 5), st.integers(0, 5), st.sets(st.integers(0, 9), max_size=3))
def test_means_and_matrix_are_those_of_pairs(seed, num_seen, num_absent, unmoved):
    if num_seen + num_absent == 0:
        return
    columns = torch.randperm(10, generator=torch.Generator().manual_seed(seed)).tolist()
    seen, absent = columns[:num_seen], columns[5 : 5 + num_absent]
    source, moved = heads(seed, 10, sorted(unmoved))
    found, update = update_cosines(source, moved, seen, absent), (moved - source).double()
    for value, pairs in (
        (found.within_seen, pairs_of(seen, seen)),
        (found.within_absent, pairs_of(absent, absent)),
        (found.across, pairs_of(seen, absent)),
    ):
        assert value == pytest.approx(mean_cosine(update, pairs), abs=1e-6, nan_ok=True)
    order = [*seen, *absent]
    assert (found.block, found.seen_blocks) == (1, num_seen)
    for i, first in enumerate(order):
        for j, second in enumerate(order):
            expected = mean_cosine(update, pairs_of([first], [second]))
            assert float(found.matrix[i, j]) == pytest.approx(expected, abs=1e-6, nan_ok=True)


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(1, 260), st.integers(1, 260))
def test_many_classes_come_in_blocks_of_one_group(seed, num_seen, num_absent):
    source, moved = heads(seed, num_seen + num_absent, [])
    seen, absent = list(range(num_seen)), list(range(num_seen, num_seen + num_absent))
    found = update_cosines(source, moved, seen, absent)
    blocks = [cs[i : i + found.block] for cs in (seen, absent) for i in range(0, len(cs), found.block)]
    assert len(found.matrix) == len(blocks) <= MOST_CELLS
    assert blocks[found.seen_blocks][0] == num_seen
    update = (moved - source).double()
    for i, j in ((0, 0), (0, len(blocks) - 1), (len(blocks) - 1, len(blocks) - 1)):
        expected = mean_cosine(update, pairs_of(blocks[i], blocks[j]))
        assert float(found.matrix[i, j]) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_tiny_updates_have_a_direction():
    source = torch.zeros(2, 3, dtype=torch.float64)
    moved = torch.tensor([[1e-200, 0, 0], [1e-300, 0, 0]], dtype=torch.float64)
    assert update_cosines(source, moved, [0], [1]).across == pytest.approx(1.0)
