"""Prototypes against a plain loop over images and classes, and on mixtures whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftc.errors import InputError
from ftc.functional import align_norms, prototype_head, variance_ratio
from ftc.functional.gamma import is_no_worse


def drawn(seed: int, size: int = 60, classes: int = 4, width: int = 3, labelled: int = 20):
    """Features around class means, a teacher's logits, and labelled features of the first two classes."""
    generator = torch.Generator().manual_seed(seed)
    means = 4 * torch.randn(classes, width, generator=generator)
    target = torch.randint(classes, (size,), generator=generator)
    features = means[target] + torch.randn(size, width, generator=generator)
    logits = 2 * torch.nn.functional.one_hot(target, classes) + torch.randn(
        size, classes, generator=generator
    )
    known = torch.arange(labelled) % 2
    of_known = means[known] + torch.randn(labelled, width, generator=generator)
    return features, logits, (of_known, known), target


def by_loops(features, logits, labelled, shrinkage, strength, ridge, rounds):
    """The logits that `prototype_head` adds, up to a constant of each image; every class has its images."""
    center = features.double().mean(0)
    x, known = features.double() - center, labelled[0].double() - center
    weight = min(1.0, len(x) / len(known))
    z, classes, width = logits.double(), logits.shape[1], x.shape[1]
    q = z.softmax(1)
    for step in range(rounds + 1):
        means, counts = [], []
        for c in range(classes):
            total, count = torch.zeros(width, dtype=torch.float64), 0.0
            for i in range(len(x)):
                total, count = total + q[i, c] * x[i], count + float(q[i, c])
            for i in range(len(known)):
                if int(labelled[1][i]) == c:
                    total, count = total + weight * known[i], count + weight
            means.append(total / (count + shrinkage))
            counts.append(count)
        outer = sum(torch.outer(row, row) for row in x) + weight * sum(torch.outer(r, r) for r in known)
        outer = outer - sum(n * torch.outer(m, m) for n, m in zip(counts, means, strict=True))
        covariance = outer / sum(counts)
        covariance = (1 - ridge) * covariance + ridge * covariance.diagonal().mean() * torch.eye(width)
        inverse = covariance.inverse()
        added = torch.stack([(x @ inverse @ m) - m @ inverse @ m / 2 for m in means], 1) * strength
        if step < rounds:
            q = (z + added).softmax(1)
    return added


@given(
    seed=st.integers(0, 10_000),
    shrinkage=st.floats(0, 30),
    strength=st.floats(0.1, 2),
    ridge=st.floats(0.1, 1),
    rounds=st.integers(1, 3),
    labelled=st.integers(2, 120),
)
@settings(max_examples=15)
def test_the_head_adds_what_loops_add(seed, shrinkage, strength, ridge, rounds, labelled):
    features, logits, known, _ = drawn(seed, labelled=labelled)
    weight, bias = prototype_head(features, logits, known, shrinkage, strength, ridge, rounds)
    expected = by_loops(features, logits, known, shrinkage, strength, ridge, rounds)
    found = features.double() @ weight.T + bias
    torch.testing.assert_close(found - found.mean(1, keepdim=True), expected - expected.mean(1, keepdim=True))


def test_a_pool_mends_a_noisy_teacher():
    features, logits, known, target = drawn(0, size=2000)
    weight, bias = prototype_head(features, logits, known, shrinkage=1.0)
    taught = logits + features.double() @ weight.T + bias
    wrong, still = (float((z.argmax(1) != target).double().mean()) for z in (logits, taught))
    assert wrong > 0.1
    assert still < wrong / 4


def test_a_class_that_no_image_is_of_keeps_its_row():
    features, logits, known, _ = drawn(1)
    logits = torch.cat([logits, torch.full((len(logits), 1), -30.0)], 1)
    weight, bias = prototype_head(features, logits, known, shrinkage=1.0)
    assert not weight[4].any()
    assert float(bias[4]) == 0.0
    assert weight[:4].abs().sum() > 0
    # The others move around what they were.
    assert float(weight[:4].mean(0).abs().max()) < 1e-12


def test_means_that_nothing_is_known_of_move_nothing():
    features, logits, known, _ = drawn(2)
    weight, bias = prototype_head(features, logits, known, shrinkage=math.inf)
    assert not weight.any()
    assert not bias.any()


def test_the_order_of_images_and_the_origin_of_features_change_nothing():
    features, logits, known, _ = drawn(3)
    weight, bias = prototype_head(features, logits, known, shrinkage=2.0)
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    other, offset = prototype_head(features[order], logits[order], known, shrinkage=2.0)
    torch.testing.assert_close((other, offset), (weight, bias))
    moved = (known[0] + 5, known[1])
    other, offset = prototype_head(features + 5, logits, moved, shrinkage=2.0)
    torch.testing.assert_close(
        (features + 5).double() @ other.T + offset,
        features.double() @ weight.T + bias,
        rtol=1e-4,  # features are float32
        atol=1e-5,
    )


def test_many_labelled_images_weigh_no_more_than_the_pool():
    features, logits, known, _ = drawn(4)
    repeated = (known[0].repeat(30, 1), known[1].repeat(30))
    once = (known[0].repeat(3, 1), known[1].repeat(3))  # as many as the pool has
    for one, other in zip(
        prototype_head(features, logits, repeated, 2.0),
        prototype_head(features, logits, once, 2.0),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_features_that_do_not_vary_are_refused():
    features, logits, known, _ = drawn(5)
    with pytest.raises(InputError, match="do not vary; give more images"):
        prototype_head(torch.ones_like(features), logits, (torch.ones_like(known[0]), known[1]), 1.0)


def test_a_class_without_images_stays_where_means_are_taken_as_they_are():
    features, logits, known, _ = drawn(6)
    logits = torch.cat([logits, torch.full((len(logits), 1), -2000.0)], 1)
    weight, bias = prototype_head(features, logits, known, shrinkage=0.0)
    assert bool(weight.isfinite().all() and bias.isfinite().all())
    assert not weight[4].any()


def test_directions_without_variance_need_a_ridge():
    features, logits, known, _ = drawn(7)
    flat, of_known = (torch.cat([x, torch.zeros(len(x), 1)], 1) for x in (features, known[0]))
    weight, _ = prototype_head(flat, logits, (of_known, known[1]), 1.0)
    assert bool(weight.isfinite().all())
    with pytest.raises(InputError, match="do not vary in all directions; give more images, or a larger"):
        prototype_head(flat, logits, (of_known, known[1]), 1.0, ridge=0.0)


def test_variance_ratio_is_that_of_the_classes():
    generator = torch.Generator().manual_seed(0)
    means = 3 * torch.randn(200, 5, generator=generator)
    target = torch.arange(200).repeat_interleave(6)
    features = means[target] + 2 * torch.randn(1200, 5, generator=generator)
    assert variance_ratio(features, target) == pytest.approx(4 / 9, rel=0.1)
    # A class of one image says nothing of its variance.
    alone = torch.cat([features, 100 * torch.ones(1, 5)])
    assert variance_ratio(alone, torch.cat([target, torch.tensor([200])])) == variance_ratio(features, target)


def test_means_that_differ_by_chance_alone_have_no_variance():
    features = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    assert variance_ratio(features, torch.tensor([0, 0, 1, 1])) == math.inf


def test_variance_ratio_cannot_tell_from_fewer_than_two_classes_of_two_images():
    assert variance_ratio(torch.randn(4, 2), torch.tensor([0, 0, 1, 2])) == math.inf
    assert variance_ratio(torch.randn(3, 2), torch.tensor([0, 1, 2])) == math.inf


def test_rows_of_seen_classes_get_the_norm_of_absent_ones():
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    aligned = align_norms(weight, [0, 1], [2, 3])
    norms = aligned.norm(dim=1)
    assert float(norms[:2].mean()) == pytest.approx(float(norms[2:4].mean()))
    torch.testing.assert_close(aligned[2:], weight[2:].double())
    torch.testing.assert_close(aligned[0] / aligned[0].norm(), weight[0].double() / weight[0].norm())
    with pytest.raises(InputError, match="no norms to align"):
        align_norms(weight, [0, 1], [])


@pytest.mark.parametrize(
    ("wrong", "size", "admitted"),
    [(0, 50, True), (1, 50, True), (2, 50, False), (1, 200, True), (6, 200, False)],
)
def test_a_loss_within_chance_is_no_loss(wrong, size, admitted):
    reference = torch.ones(size, dtype=torch.bool)
    hit = reference.clone()
    hit[:wrong] = False
    assert is_no_worse(hit, reference, 0.01) == admitted


def test_a_loss_may_be_chance_where_as_many_are_gained():
    reference = torch.tensor([True] * 40 + [False] * 20)
    hit = torch.tensor([False] * 21 + [True] * 39)
    assert is_no_worse(hit, reference, 0.01)
