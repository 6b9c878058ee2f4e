"""Streamed in pieces, metrics equal the functions on all at once."""

from __future__ import annotations

import pytest
import torch

from ftc.functional import class_means, logit_gap, logit_scale, partition_accuracy, seen_absent_curve
from ftc.metrics import (
    LogitGapStream,
    LogitScale,
    MarginStream,
    NearestClassMean,
    OutcomeStream,
    PartitionAccuracy,
    SeenAbsentCurve,
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


def test_gap_stream_keeps_seen_samples_only(partition):
    logits, target = random_logits(partition)
    seen = torch.isin(target, torch.tensor(partition.seen))
    found = streamed(LogitGapStream(partition), logits, target)
    assert torch.equal(found, logit_gap(logits[seen], target[seen], partition))


def test_class_means_in_pieces(partition):
    features, target = torch.randn(200, 5), torch.arange(200) % 6
    found = streamed(NearestClassMean(6, 5), features, target)
    torch.testing.assert_close(found, class_means(features, target, 6))


def test_state_is_at_most_32_bytes_a_sample(partition):
    logits, target = random_logits(partition)
    metric = OutcomeStream(partition, top_k=(1, 5))
    metric.update(logits, target)
    size = sum(t.element_size() * t.numel() for name in metric._defaults for t in getattr(metric, name))
    assert size <= 32 * len(target)


def test_reset_forgets(partition):
    logits, _ = random_logits(partition)
    metric = MarginStream(partition)
    metric.update(logits)
    metric.reset()
    metric.update(logits[:3])
    assert len(metric.compute()) == 3
