"""Representations against loops over images, pairs and classes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ftc.errors import InputError
from ftc.functional import class_shift, linear_cka
from ftc.functional.representation import principal_plane


def drawn(seed: int, *shapes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) + 3 for shape in shapes]


def cka_by_kernels(x, y) -> float:
    n = len(x)
    centre = torch.eye(n, dtype=torch.float64) - 1 / n
    k, h = (centre @ (f.double() @ f.double().T) @ centre for f in (x, y))
    shared = sum(float(k[i, j] * h[i, j]) for i in range(n) for j in range(n))
    return shared / math.sqrt(float((k**2).sum()) * float((h**2).sum()))


@given(st.integers(0, 99), st.integers(3, 12), st.integers(1, 12), st.integers(1, 12))
def test_cka_is_what_its_kernels_say(seed, n, first, second):
    x, y = drawn(seed, (n, first), (n, second))
    assert linear_cka(x, y) == pytest.approx(cka_by_kernels(x, y), abs=1e-9)
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x), abs=1e-12)
    turned, _ = torch.linalg.qr(drawn(seed + 1, (first, first))[0].double())
    assert linear_cka(x, 0.5 * x.double() @ turned + 7) == pytest.approx(1.0, abs=1e-9)


def test_cka_wants_both_features_of_the_same_images():
    x, y = drawn(0, (4, 3), (5, 3))
    with pytest.raises(InputError, match="features are of 4 and of 5 images"):
        linear_cka(x, y)
    assert math.isnan(linear_cka(torch.ones(4, 3), x))
    assert math.isnan(linear_cka(x[:0], x[:0]))


@given(st.integers(0, 99), st.lists(st.sampled_from([1, 4, 7]), min_size=2, max_size=12))
def test_shift_is_that_of_means_by_loops(seed, labels):
    assume(len(set(labels)) > 1)
    source, fine_tuned = drawn(seed, (len(labels), 5), (len(labels), 5))
    shift = class_shift(source, fine_tuned, torch.tensor(labels))
    means = {}
    for name, features in (("old", source.double()), ("new", fine_tuned.double())):
        for c in set(labels):
            rows = [f for f, y in zip(features, labels, strict=True) if y == c]
            means[name, c] = sum(rows) / len(rows)
    classes = sorted(set(labels))
    assert shift.columns.tolist() == classes
    centre = sum(means["old", c] for c in classes) / len(classes)
    radius = sum(float((means["old", c] - centre).norm()) for c in classes) / len(classes)
    for k, c in enumerate(classes):
        old, new = means["old", c], means["new", c]
        assert float(shift.drift[k]) == pytest.approx(float((new - old).norm()) / radius)
        assert float(shift.cosine[k]) == pytest.approx(float(old @ new / (old.norm() * new.norm())))


@given(st.integers(0, 99), st.integers(2, 9), st.integers(1, 9))
def test_plane_is_the_singular_vectors(seed, size, width):
    (points,) = drawn(seed, (size, width))
    found, shares = principal_plane(points)
    x = points.double() - points.double().mean(0)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    variances = (s**2).tolist()
    expected = (u * s)[:, :2]
    for axis in range(min(2, len(s), size - 1)):
        column = found[:, axis]
        assert float(shares[axis]) == pytest.approx(variances[axis] / sum(variances))
        # Axes of nearly the same variance may be any.
        if all(abs(v - variances[axis]) > 1e-3 for i, v in enumerate(variances) if i != axis):
            assert torch.allclose(column.abs(), expected[:, axis].abs(), atol=1e-6)
        assert float(column.max()) >= -float(column.min()) - 1e-9
    assert found.shape == (size, 2)


def test_classes_that_are_one_have_no_plane():
    shift = class_shift(torch.ones(4, 3), torch.ones(4, 3), torch.tensor([0, 0, 2, 2]))
    assert shift.drift.isnan().all() and shift.explained.isnan().all()
    assert not shift.source.any() and not shift.fine_tuned.any()
