"""Columns for classes that a head lacks, against loops over images and classes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftc import InputError
from ftc.functional import imprinted_columns

KNOWN, WIDTH = 4, 6


def a_case(seed: int, classes: list[int]):
    generator = torch.Generator().manual_seed(seed)
    target = torch.tensor(classes).repeat_interleave(5)
    features = torch.randn(len(target), 3, generator=generator).abs() + torch.eye(WIDTH, 3)[target]
    weight, bias = torch.randn(WIDTH, 3, generator=generator), torch.randn(WIDTH, generator=generator)
    return features, target, weight, bias


def by_loops(features, target, weight, bias, new):
    unit = {
        c: [f / f.norm() for f, y in zip(features, target, strict=True) if y == c] for c in target.tolist()
    }
    means = {c: sum(values) / len(values) for c, values in unit.items()}
    centre = sum(means.values()) / len(means)
    length = sum(float(weight[c].norm()) for c in range(KNOWN)) / KNOWN
    rows = {c: (means[c] - centre) / (means[c] - centre).norm() * length for c in new}
    gaps = []
    for feature, y in zip(features, target.tolist(), strict=True):
        old = [float(weight[c] @ feature + bias[c]) for c in range(KNOWN) if c != y]
        added = [float(rows[c] @ feature) for c in new if c != y]
        if added:
            gaps.append(sum(old) / len(old) - sum(added) / len(added))
    return rows, sum(gaps) / len(gaps)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from([[4, 5], [5, 4, 0], [1, 2, 4], [3, 5]]))
def test_new_columns_by_loops(seed, classes):
    features, target, weight, bias = (value.double() for value in a_case(seed, classes))
    new = [c for c in classes if c >= KNOWN]
    rows, biases = imprinted_columns(features, target.long(), weight, bias, new, range(KNOWN))
    expected, level = by_loops(features, target.long(), weight, bias, new)
    torch.testing.assert_close(rows, torch.stack([expected[c] for c in new]))
    torch.testing.assert_close(biases, torch.full((len(new),), level, dtype=torch.float64))


def test_a_class_alone_has_nothing_to_be_compared_with():
    features, target, weight, bias = a_case(0, [4])
    rows, biases = imprinted_columns(features, target, weight, bias, [4], range(KNOWN))
    mean = torch.nn.functional.normalize(features, dim=1).mean(0)
    assert float(torch.cosine_similarity(rows[0], mean.double(), dim=0)) == pytest.approx(1)
    assert float(rows[0].norm()) == pytest.approx(float(weight[:KNOWN].norm(dim=1).mean()))
    assert float(biases[0]) == pytest.approx(float(bias[:KNOWN].mean()))


def test_values_of_the_new_columns_before_do_not_count():
    features, target, weight, bias = a_case(1, [0, 4, 5])
    first = imprinted_columns(features, target, weight, bias, [4, 5], range(KNOWN))
    weight[KNOWN:], bias[KNOWN:] = 1e6, -1e6
    second = imprinted_columns(features, target, weight, bias, [4, 5], range(KNOWN))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_no_bias_counts_as_zero():
    features, target, weight, bias = a_case(2, [4, 5])
    without = imprinted_columns(features, target, weight, None, [4, 5], range(KNOWN))
    zero = imprinted_columns(features, target, weight, torch.zeros_like(bias), [4, 5], range(KNOWN))
    assert all(torch.equal(a, b) for a, b in zip(without, zero, strict=True))


def test_what_gives_no_column_is_refused():
    features, target, weight, bias = a_case(3, [4, 5])
    for alike in (torch.zeros_like(features), torch.ones_like(features)):
        with pytest.raises(InputError, match="a new class has no mean of features of its own"):
            imprinted_columns(alike, target, weight, bias, [4, 5], range(KNOWN))
    with pytest.raises(InputError, match="a new class has no mean of features of its own"):
        imprinted_columns(features[:5], target[:5], weight, bias, [4, 5], range(KNOWN))
    with pytest.raises(InputError, match="the head knows no class"):
        imprinted_columns(features, target, weight, bias, [4, 5], [])
