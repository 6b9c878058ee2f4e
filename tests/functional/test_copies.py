"""Near copies are found by distances inside a class, in units of what is usual there."""

from __future__ import annotations

import math

import pytest
import torch

from ftc.functional import near_copies


def domain(seed: int, count: int, size: int = 96, spread: float = 1.0):
    """Features of five classes that differ in a few directions and vary, unevenly, in all."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(count) % 5
    centres = torch.randn(5, size, generator=torch.Generator().manual_seed(99)) * 4
    scales = torch.linspace(2, 0.1, size) * spread
    return centres[target] + torch.randn(count, size, generator=generator) * scales, target


def test_images_of_their_own_are_no_copies():
    features, target = domain(0, 200)
    assert near_copies(features, target, *domain(1, 500)) < 0.05


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_the_share_of_copies_is_found(share):
    trained, labels = domain(1, 500)
    features, target = domain(0, 200)
    copies = torch.randperm(200, generator=torch.Generator().manual_seed(2))[: int(200 * share)]
    # Every copy is a training image of its class, a little changed, in other units.
    features[copies] = trained[copies] + 0.02 * torch.randn(len(copies), 96)
    found = near_copies(7 * features, target, 3 * trained, labels)
    assert found == pytest.approx(share, abs=0.04)


def test_a_class_that_looks_the_same_all_over_is_no_copy():
    features, target = domain(0, 200, spread=0.02)
    assert near_copies(features, target, *domain(1, 500, spread=0.02)) < 0.05


def test_a_copy_under_another_label_is_none():
    trained, labels = domain(1, 500)
    assert near_copies(trained[:100], (labels[:100] + 1) % 5, trained, labels) == 0


def test_classes_without_two_training_images_are_left_out():
    features, target = domain(0, 20)
    assert math.isnan(near_copies(features, target, features[:5], target[:5]))
    assert math.isnan(near_copies(features[:0], target[:0], features, target))
    some = torch.tensor([0, 5, 10, 1])
    assert near_copies(features[some], target[some], features[some], target[some]) == 1


def test_few_directions_cannot_tell():
    features, target = domain(0, 200, size=2)
    assert math.isnan(near_copies(features, target, *domain(1, 500, size=2)))
