"""Probabilities at γ and T against full softmax, scikit-learn, torchmetrics and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from ftc import ClassPartition, InputError
from ftc.functional import (
    classwise_ece,
    logit_sums,
    partition_accuracy,
    probability_metrics,
    reduce_logits,
    reliability,
    reliability_by_group,
)
from ftc.functional.probability import equal_mass_means, sample_scores
from tests.conftest import random_logits

PARTITION = ClassPartition(6, seen=[0, 2, 4], absent=[1, 5])
SEEDS = st.integers(0, 10**6)
GAMMAS = st.one_of(st.floats(-200, 200), st.integers(-3, 3).map(float))
TEMPERATURES = st.floats(0.05, 20)


def softmax(logits, gamma, temperature, partition=PARTITION):
    shifted = logits.double()
    shifted[:, list(partition.absent)] += gamma
    return (shifted / temperature).softmax(1)


def measured(logits, target, gamma, temperature=1.0, partition=PARTITION):
    sums = logit_sums(logits, target, partition, temperature)
    return probability_metrics(sums, reduce_logits(logits, target, partition), partition, gamma)


def loop_ece(score, outcome, bins):
    """The gap bin by bin, with every sample cut into ``bins`` equal pieces; equal scores share outcomes."""
    pairs = sorted(zip(score, outcome, strict=True))
    shared = [
        (s, sum(o for t, o in pairs if t == s) / sum(t == s for t, _ in pairs))
        for s, _ in pairs
        for _ in range(bins)
    ]
    size = len(pairs)
    parts = [shared[k * size : (k + 1) * size] for k in range(bins)]
    return sum(abs(sum(s - o for s, o in part)) for part in parts) / (size * bins)


@given(SEEDS, GAMMAS, TEMPERATURES)
def test_metrics_equal_those_of_the_whole_softmax(seed, gamma, temperature):
    logits, target = random_logits(PARTITION, 40, seed)
    logits *= 8
    p = softmax(logits, gamma, temperature)
    found = measured(logits, target, gamma, temperature)
    groups = {"all": range(6), "seen": PARTITION.seen, "absent": PARTITION.absent}
    for group, columns in groups.items():
        rows = torch.isin(target, torch.tensor(list(columns)))
        own = p[rows].gather(1, target[rows, None])[:, 0]
        one_hot = torch.nn.functional.one_hot(target[rows], 6)
        if not torch.any(own == 0):
            assert found[f"nll_{group}"] == pytest.approx(float(-own.log().mean()), rel=1e-5, abs=1e-5)
        brier = float((p[rows] - one_hot).square().sum(1).mean())
        assert found[f"brier_{group}"] == pytest.approx(brier, abs=1e-5)
        confidence = float(p[rows].amax(1).mean())
        assert found[f"confidence_{group}"] == pytest.approx(confidence, abs=1e-5)
        if rows.any():
            hit = (p[rows].argmax(1) == target[rows]).double().tolist()
            expected = loop_ece(p[rows].amax(1).tolist(), hit, 15)
            # Saturated confidences tie in one arithmetic and not in the other.
            if p[rows].amax(1).max() < 1 - 1e-9:
                assert found[f"ece_{group}"] == pytest.approx(expected, abs=1e-5)


def test_nll_and_brier_equal_scikit_learns():
    logits, target = random_logits(PARTITION, 300)
    p = softmax(logits, 1.5, 0.8).numpy()
    found = measured(logits, target, 1.5, 0.8)
    assert found["nll_all"] == pytest.approx(log_loss(target, p, labels=range(6)), rel=1e-6)
    brier = ((p - np.eye(6)[target]) ** 2).sum(1).mean()
    assert found["brier_all"] == pytest.approx(brier, rel=1e-6)


def test_one_bin_is_torchmetrics_one_bin():
    logits, target = random_logits(PARTITION, 300)
    p = softmax(logits, 0.7, 1.0)
    expected = multiclass_calibration_error(p, target, 6, n_bins=1)
    confidence, predicted = p.max(1)
    assert reliability(confidence, predicted == target, 1).ece == pytest.approx(float(expected), abs=1e-6)


def test_bins_of_equal_mass_are_torchmetrics_where_both_edges_agree():
    # Ten samples in each tenth: bins of equal width and of equal mass are the same ones.
    generator = torch.Generator().manual_seed(0)
    top = (torch.arange(100) + torch.rand(100, generator=generator) * 0.9 + 0.05) / 100
    hit = torch.rand(100, generator=generator) < top
    ours = reliability(top, hit, 10).ece
    # Enough other columns that even the smallest of these confidences is the largest of its row.
    p = torch.cat([top[:, None], ((1 - top) / 3000)[:, None].expand(100, 3000)], 1)
    theirs = multiclass_calibration_error(p, (~hit).long(), 3001, n_bins=10)
    assert ours == pytest.approx(float(theirs), abs=1e-6)


@given(SEEDS, st.integers(1, 60), st.integers(1, 20), st.booleans())
def test_equal_mass_bins_against_a_loop(seed, size, bins, tied):
    generator = torch.Generator().manual_seed(seed)
    score = torch.rand(size, generator=generator).double()
    score = (score * 4).round() / 4 if tied else score
    outcome = (torch.rand(size, generator=generator) < 0.5).double()
    means = equal_mass_means(score[None], outcome[None], bins)
    gap = float((means[0] - means[1]).abs().mean())
    assert gap == pytest.approx(loop_ece(score.tolist(), outcome.tolist(), bins), abs=1e-12)
    order = torch.randperm(size, generator=generator)
    again = equal_mass_means(score[order][None], outcome[order][None], bins)
    assert torch.equal(means[0], again[0]) and torch.equal(means[1], again[1])


def test_few_samples_are_a_bin_each():
    confidence, hit = torch.tensor([0.9, 0.6, 0.7]), torch.tensor([True, True, False])
    found = reliability(confidence, hit)
    assert found.ece == pytest.approx((0.1 + 0.4 + 0.7) / 3)
    assert found.num_samples == 3


# At a lower T probabilities saturate, and rounding decides which of them are equal.
@given(SEEDS, st.floats(-5, 5), st.floats(0.5, 20))
def test_classwise_error_against_a_loop(seed, gamma, temperature):
    logits, target = random_logits(PARTITION, 37, seed)
    target[target == 3] = 0
    p = softmax(logits, gamma, temperature)
    gaps = [
        loop_ece(p[:, column].tolist(), (target == column).double().tolist(), 15)
        for column in target.unique().tolist()
    ]
    expected = sum(gaps) / len(gaps)
    assert classwise_ece(logits, target, PARTITION, gamma, temperature) == pytest.approx(expected, abs=1e-7)


@given(SEEDS, GAMMAS)
def test_hits_are_those_that_accuracies_count(seed, gamma):
    logits, target = random_logits(PARTITION, 50, seed)
    logits = logits.round()  # ties
    outcomes = reduce_logits(logits, target, PARTITION)
    scores = sample_scores(logit_sums(logits, target, PARTITION), outcomes, PARTITION, gamma)
    accuracy = partition_accuracy(logits, target, PARTITION, gamma)
    assert float(scores.hit.double().mean()) == pytest.approx(accuracy["acc_all"])
    for group, bins in reliability_by_group(
        logit_sums(logits, target, PARTITION), outcomes, PARTITION, gamma
    ).items():
        assert float(bins.accuracy.mean()) == pytest.approx(accuracy[f"acc_{group}"])


def test_no_absent_class_and_no_absent_sample():
    logits, target = random_logits(PARTITION, 30)
    without = ClassPartition(6, seen=range(6))
    assert measured(logits, target, 3.0, partition=without)["nll_all"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, target)), rel=1e-6
    )
    seen = torch.isin(target, torch.tensor(PARTITION.seen))
    found = measured(logits[seen], target[seen], 0.0)
    assert all(math.isnan(found[f"{name}_absent"]) for name in ("nll", "brier", "ece", "confidence"))
    assert found["ece_seen"] == found["ece_all"]


def test_far_groups_come_back():
    # 300 logits apart: exp underflows unless each group is taken by its own largest logit.
    logits = torch.tensor([[300.0, 0.0, 299.0, -50.0, 298.0, -1.0]])
    found = measured(logits, torch.tensor([1]), 300.0)
    p = softmax(logits, 300.0, 1.0)
    assert found["nll_all"] == pytest.approx(float(-p[0, 1].log()), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_are_positive(temperature):
    logits, target = random_logits(PARTITION, 5)
    with pytest.raises(InputError, match="give a positive number"):
        logit_sums(logits, target, PARTITION, temperature)
    with pytest.raises(InputError, match="give a positive number"):
        classwise_ece(logits, target, PARTITION, 0.0, temperature)
