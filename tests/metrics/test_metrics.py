"""Streamed in pieces, metrics equal the functions on all at once."""

from __future__ import annotations

import math

import pytest
import torch

from ftc import ClassPartition
from ftc.functional import (
    class_means,
    feature_change,
    logit_scale,
    logit_sums,
    partition_accuracy,
    pool_statistics,
    reduce_logits,
    seen_absent_curve,
    seen_statistics,
)
from ftc.functional.gamma import non_target_gap
from ftc.functional.statistics import keep_seen
from ftc.metrics import (
    EvaluatedGapStream,
    FeatureDrift,
    LogitScale,
    NearestClassMean,
    OutcomeStream,
    PartitionAccuracy,
    PoolStream,
    ProbabilityStream,
    SeenAbsentCurve,
    SeenStream,
)
from tests.conftest import random_logits

PIECES = (50, 1, 149)


def streamed(metric, logits, target):
    for z, y in zip(logits.split(PIECES), target.split(PIECES), strict=True):
        metric.update(z, y)
    return metric.compute()


@pytest.mark.parametrize("average", ["sample", "class"])
def test_curve_in_pieces(partition, average):
    logits, target = random_logits(partition)
    found = streamed(SeenAbsentCurve(partition, average), logits, target)
    whole = seen_absent_curve(logits, target, partition, average)
    for name in ("gamma", "acc_seen", "acc_absent", "acc_all"):
        assert torch.equal(getattr(found, name), getattr(whole, name))
    assert found.ausuc == whole.ausuc


def test_accuracy_in_pieces(partition):
    logits, target = random_logits(partition)
    found = streamed(PartitionAccuracy(partition, gamma=0.7, top_k=(1, 3)), logits, target)
    assert found == partition_accuracy(logits, target, partition, 0.7, (1, 3))


def test_scale_in_pieces_and_histograms_count_every_sample(partition):
    logits, target = random_logits(partition)
    found = streamed(LogitScale(partition, limit=2.0, bins=8), logits, target)
    whole = logit_scale(logits, target, partition)
    assert found.scales == pytest.approx(whole)
    seen = torch.isin(target, torch.tensor(partition.seen))
    own = logits.gather(1, target[:, None])[seen, 0].double()
    expected = torch.histogram(own.clamp(-2, 2), bins=found.edges).hist.long()
    assert torch.equal(found.histograms["logit_ground_truth_on_seen"], expected)


def test_outcomes_in_pieces(partition):
    logits, target = random_logits(partition)
    found = streamed(OutcomeStream(partition, (1, 3)), logits, target)
    whole = reduce_logits(logits, target, partition, (1, 3))
    for name in ("margin", "threshold", "within", "target"):
        assert torch.equal(getattr(found, name), getattr(whole, name))
    assert found.target.dtype == torch.int64


def test_probabilities_in_pieces(partition):
    logits, target = random_logits(partition)
    found = streamed(ProbabilityStream(partition), logits, target)
    whole = logit_sums(logits, target, partition)
    for name in ("sum_fixed", "sum_absent", "squares_fixed", "squares_absent", "own"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-6, atol=0)


def test_seen_stream_keeps_seen_samples_only(partition):
    logits, target = random_logits(partition)
    found = streamed(SeenStream(partition), logits, target)
    whole = seen_statistics(*keep_seen(logits, target, partition), partition)
    for name in ("gap", "margin", "hit"):
        assert torch.equal(getattr(found, name), getattr(whole, name))


def test_no_seen_sample_is_a_legal_number_of_them(partition):
    stream = SeenStream(partition)
    assert len(stream.compute()) == 0
    stream.update(torch.randn(4, 6), torch.tensor([1, 5, 3, 1]))
    found = stream.compute()
    assert [len(part) for part in (found.gap, found.margin, found.hit)] == [0, 0, 0]
    assert found.hit.dtype == torch.bool


def test_pool_stream_and_evaluated_gaps_in_pieces(partition):
    logits, target = random_logits(partition)
    pool = PoolStream(partition)
    for piece in logits.split(PIECES):
        pool.update(piece)
    whole = pool_statistics(logits, partition)
    assert torch.equal(pool.compute().margin, whole.margin)
    assert torch.equal(pool.compute().top_absent, whole.top_absent)
    gap = streamed(EvaluatedGapStream(partition), logits, target)
    assert torch.equal(gap, non_target_gap(logits, target, partition))


def test_class_means_in_pieces(partition):
    features, target = torch.randn(200, 5), torch.arange(200) % 6
    found = streamed(NearestClassMean(6, 5), features, target)
    torch.testing.assert_close(found, class_means(features, target, 6))


def test_feature_drift_equals_plain_means(partition):
    generator = torch.Generator().manual_seed(0)
    new, old = (torch.randn(200, 5, generator=generator) for _ in range(2))
    target = torch.arange(200) % 6
    drift = FeatureDrift(partition)
    for rows in torch.arange(200).split(PIECES):
        drift.update(new[rows], old[rows], target[rows])
    found = drift.compute()
    cosine, distance, norm = feature_change(new, old)
    for group in ("seen", "absent"):
        rows = torch.isin(target, torch.tensor(partition.columns(group)))
        assert found[f"feature_cosine_on_{group}"] == pytest.approx(float(cosine[rows].mean()))
        assert found[f"feature_shift_on_{group}"] == pytest.approx(
            float(distance[rows].sum() / norm[rows].sum())
        )


def test_drift_of_a_group_without_samples_is_nan(partition):
    drift = FeatureDrift(partition)
    drift.update(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([0, 2]))
    found = drift.compute()
    assert found["feature_cosine_on_seen"] == pytest.approx(1.0)
    assert math.isnan(found["feature_cosine_on_absent"])


@pytest.mark.parametrize(
    ("stream", "limit"),
    [
        (lambda p: OutcomeStream(p, top_k=(1, 5)), 34),
        (lambda p: SeenStream(p), 21),
        (lambda p: EvaluatedGapStream(p), 12),
    ],
)
def test_state_is_a_few_bytes_a_sample(stream, limit):
    # Everything is seen or absent, so that every sample is kept by each of them.
    partition = ClassPartition(1000, range(999), [999])
    metric = stream(partition)
    metric.update(torch.randn(64, 1000), torch.arange(64))
    assert bytes_of(metric) <= limit * 64


def test_pool_state_is_a_few_bytes_an_image(partition):
    metric = PoolStream(partition)
    metric.update(torch.randn(64, 6))
    assert bytes_of(metric) <= 24 * 64


def bytes_of(metric) -> int:
    return sum(t.element_size() * t.numel() for name in metric._defaults for t in getattr(metric, name))


def test_reset_forgets(partition):
    logits, _ = random_logits(partition)
    metric = PoolStream(partition)
    metric.update(logits)
    metric.reset()
    metric.update(logits[:3])
    assert len(metric.compute()) == 3
