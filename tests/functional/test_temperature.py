"""Temperatures against fine grids and against their definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from ftc import ClassPartition, InputError
from ftc.functional import fit_temperature, matching_temperature, predicted_columns
from ftc.functional.mixture import expected_accuracy
from ftc.functional.temperature import BOUNDS
from tests.conftest import random_logits

PARTITION = ClassPartition(6, seen=[0, 2, 4], absent=[1, 5])
SEEDS = st.integers(0, 10**6)
GAMMAS = st.floats(-5, 5)


def held_out(seed, scale=1.0, size=80):
    logits, target = random_logits(PARTITION, size, seed)
    seen = torch.isin(target, torch.tensor(PARTITION.seen))
    return scale * logits[seen].double(), target[seen]


def shifted(logits, gamma):
    logits = logits.clone().double()
    logits[:, list(PARTITION.absent)] += gamma
    return logits


@given(SEEDS, GAMMAS, st.floats(0.1, 10))
def test_no_temperature_of_a_grid_is_better(seed, gamma, scale):
    logits, target = held_out(seed, scale)
    found = fit_temperature(logits, target, PARTITION, gamma)
    best = cross_entropy(shifted(logits, gamma) / found, target)
    for temperature in torch.logspace(-2, 2, 81, dtype=torch.float64):
        assert best <= cross_entropy(shifted(logits, gamma) / temperature, target) + 1e-12


@given(SEEDS)
def test_scaled_logits_have_scaled_temperatures(seed):
    logits, target = held_out(seed)
    found = fit_temperature(logits, target, PARTITION)
    assert fit_temperature(3 * logits, target, PARTITION) == pytest.approx(3 * found, rel=1e-8)


@given(SEEDS, GAMMAS)
def test_no_prediction_changes(seed, gamma):
    logits, target = held_out(seed)
    temperature = fit_temperature(logits, target, PARTITION, gamma)
    before = predicted_columns(logits, PARTITION, [gamma])
    assert torch.equal(before, predicted_columns(logits / temperature, PARTITION, [gamma / temperature]))


def test_samples_without_an_error_and_hopeless_ones_end_at_the_bounds():
    logits = 5 * torch.eye(6)[[0, 2, 4]]
    assert fit_temperature(logits, torch.tensor([0, 2, 4]), PARTITION) == BOUNDS[0]
    assert fit_temperature(logits, torch.tensor([2, 4, 0]), PARTITION) == BOUNDS[1]


def test_absent_samples_are_refused():
    logits, target = random_logits(PARTITION, 50)
    with pytest.raises(InputError, match="is not a seen class"):
        fit_temperature(logits, target, PARTITION)


@given(SEEDS, GAMMAS, st.floats(0.3, 0.99))
def test_mean_confidence_matches_the_accuracy(seed, gamma, accuracy):
    logits, _ = random_logits(PARTITION, 60, seed)
    temperature = matching_temperature(logits, PARTITION, gamma, accuracy)
    confidence = (shifted(logits, gamma) / temperature).softmax(1).amax(1).mean()
    # Near ties keep the mean below some accuracies at the least temperature.
    assert float(confidence) == pytest.approx(accuracy, abs=1e-9) or temperature == BOUNDS[0]
    assert confidence < accuracy + 1e-9


def test_accuracies_out_of_reach_end_at_the_bounds_and_wrong_ones_are_refused():
    logits, _ = random_logits(PARTITION, 60)
    assert matching_temperature(logits, PARTITION, 0.0, 0.0) == BOUNDS[1]
    assert matching_temperature(logits, PARTITION, 0.0, 1.0) == BOUNDS[0]
    with pytest.raises(InputError, match=r"accuracy=1.2: give a fraction"):
        matching_temperature(logits, PARTITION, 0.0, 1.2)


@given(SEEDS, st.floats(-3, 3))
def test_expected_accuracy_is_the_accuracy_where_everything_is_known(seed, gamma):
    generator = torch.Generator().manual_seed(seed)
    margin = torch.randn(30, generator=generator).double()
    absent = torch.rand(30, generator=generator) < 0.4
    absent[:2] = torch.tensor([True, False])
    hit = torch.rand(30, generator=generator) < 0.7
    found = expected_accuracy((margin[~absent], hit[~absent]), margin, absent.double(), 1.0, gamma)
    right = torch.where(absent, gamma > margin, hit & (gamma <= margin))
    assert found == pytest.approx(float(right.double().mean()))
