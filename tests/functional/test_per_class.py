"""Results class by class, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftc import ClassPartition
from ftc.functional import class_accuracies, confusion_changes, partition_accuracy, predicted_columns

GAMMAS = st.floats(-5, 5)
SEEDS = st.integers(0, 10**6)


def drawn(seed: int, rounded: bool = True):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(30, 7, generator=generator) * 2
    # Rounded logits tie.
    return (logits.round() if rounded else logits), torch.randint(0, 7, (30,), generator=generator)


@given(SEEDS, st.one_of(GAMMAS, st.integers(-3, 3).map(float)))
def test_predictions_are_those_that_accuracies_count(seed, gamma):
    partition = ClassPartition(7, [0, 3], [1, 5, 6])
    logits, target = drawn(seed)
    _, predicted = predicted_columns(logits, partition, [-gamma, gamma])
    for z, column in zip(logits.double(), predicted.tolist(), strict=True):
        best_fixed = max(z[c].item() for c in partition.fixed)
        best_absent = max(z[c].item() for c in partition.absent)
        group = partition.absent if gamma > best_fixed - best_absent else partition.fixed
        assert column == max(group, key=lambda c: (z[c].item(), -c))
    accuracy = partition_accuracy(logits, target, partition, gamma)["acc_all"]
    assert (predicted == target).double().mean().item() == pytest.approx(accuracy)


@given(SEEDS)
def test_a_partition_without_absent_classes(seed):
    logits, _ = drawn(seed, rounded=False)
    assert torch.equal(predicted_columns(logits, ClassPartition(7, [0]), [3.0])[0], logits.argmax(1))


@given(SEEDS, SEEDS)
def test_accuracies_by_class(seed, other):
    _, target = drawn(seed)
    _, predicted = drawn(other)
    found = class_accuracies(target, predicted).tolist()
    assert len(found) == int(target.max()) + 1
    for column in range(len(found)):
        hits = [p == y for y, p in zip(target.tolist(), predicted.tolist(), strict=True) if y == column]
        expected = sum(hits) / len(hits) if hits else math.nan
        assert found[column] == pytest.approx(expected, nan_ok=True)


@given(SEEDS, SEEDS, SEEDS)
def test_confusions_that_change(seed, first, second):
    _, target = drawn(seed)
    before, after = drawn(first)[1], drawn(second)[1]
    changes = confusion_changes(target, before, after)
    pairs = {(label, other) for label in range(7) for other in range(7) if label != other}
    expected = {}
    for label, other in pairs:
        of_class = target == label
        counts = [int((predicted[of_class] == other).sum()) for predicted in (before, after)]
        if counts[0] != counts[1]:
            expected[label, other] = tuple(counts)
    assert {(c.label, c.predicted): (c.before, c.after) for c in changes} == expected
    sizes = [abs(c.after - c.before) for c in changes]
    assert sizes == sorted(sizes, reverse=True)


def test_nothing_changes_without_samples():
    none = torch.zeros(0, dtype=torch.int64)
    assert confusion_changes(none, none, none) == []
