"""Logit scales, gaps, quantiles and class means against plain loops and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from ftc import ClassPartition, InputError
from ftc.functional import (
    average_logit_gap,
    class_means,
    cosine_logits,
    feature_change,
    logit_gap,
    logit_scale,
    matching_quantile,
    partition_accuracy,
    pool_statistics,
    seen_statistics,
)
from ftc.functional.statistics import keep_seen
from tests.conftest import random_logits


def test_logit_scales_equal_loops(partition):
    logits, target = random_logits(partition)
    found = logit_scale(logits, target, partition)
    z, y = logits.double().numpy(), target.numpy()
    for samples, ids in (("seen", partition.seen), ("absent", partition.absent)):
        rows = [i for i in range(len(y)) if y[i] in ids]
        assert found[f"logit_ground_truth_on_{samples}"] == pytest.approx(np.mean([z[i, y[i]] for i in rows]))
        means = {}
        for columns, cols in (("seen", partition.seen), ("absent", partition.absent)):
            rivals = [[z[i, c] for c in cols if c != y[i]] for i in rows]
            means[columns] = np.mean([np.mean(r) for r in rivals])
            assert found[f"logit_{columns}_mean_on_{samples}"] == pytest.approx(means[columns])
            assert found[f"logit_{columns}_rival_on_{samples}"] == pytest.approx(
                np.mean([max(r) for r in rivals])
            )
            largest = np.mean([max(z[i, c] for c in cols) for i in rows])
            assert found[f"logit_{columns}_max_on_{samples}"] == pytest.approx(largest)
        assert found[f"logit_gap_on_{samples}"] == pytest.approx(means["seen"] - means["absent"])


def test_scales_of_missing_groups_are_nan():
    no_absent = ClassPartition(3, [0, 1])
    found = logit_scale(torch.randn(4, 3), [0, 1, 0, 1], no_absent)
    assert math.isnan(found["logit_absent_max_on_seen"])
    assert math.isnan(found["logit_ground_truth_on_absent"])
    assert math.isfinite(found["logit_seen_mean_on_seen"])
    single = ClassPartition(3, [0], [1])
    assert math.isnan(logit_scale(torch.randn(4, 3), [0, 0, 0, 0], single)["logit_seen_rival_on_seen"])


def test_average_logit_gap_equals_the_paper_formula(partition):
    logits, target = random_logits(partition)
    keep = torch.isin(target, torch.tensor(partition.seen))
    z, y = logits[keep].double().numpy(), target[keep].numpy()
    expected = np.mean(
        [
            np.mean([row[c] for c in partition.seen if c != label]) - np.mean(row[list(partition.absent)])
            for row, label in zip(z, y, strict=True)
        ]
    )
    assert average_logit_gap(logits[keep], target[keep], partition) == pytest.approx(expected)


def test_average_logit_gap_refuses_what_it_must_not_see(partition):
    logits, target = random_logits(partition)
    row = int((~torch.isin(target, torch.tensor(partition.seen))).nonzero()[0])
    with pytest.raises(InputError, match=f"of row {row} is not a seen class"):
        average_logit_gap(logits, target, partition)
    with pytest.raises(InputError, match="needs two seen classes and one absent"):
        average_logit_gap(torch.randn(2, 3), [0, 0], ClassPartition(3, [0], [1]))


def test_seen_statistics_equal_plain_numbers(partition):
    logits, target = keep_seen(*random_logits(partition), partition)
    found = seen_statistics(logits, target, partition)
    fixed, absent = logits[:, list(partition.fixed)].double(), logits[:, list(partition.absent)].double()
    assert torch.equal(found.margin, fixed.amax(1) - absent.amax(1))
    assert torch.equal(found.hit, torch.tensor(partition.fixed)[fixed.argmax(1)] == target)
    assert torch.equal(found.gap, logit_gap(logits, target, partition))
    half = found.rows(torch.arange(0, len(found), 2))
    assert torch.equal(half.gap, found.gap[::2])


def test_only_seen_samples_are_kept(partition):
    logits, target = random_logits(partition)
    kept_logits, kept = keep_seen(logits.numpy(), target.tolist(), partition)
    rows = [i for i, y in enumerate(target.tolist()) if y in partition.seen]
    assert torch.equal(kept, target[rows])
    assert torch.equal(kept_logits, logits[rows])
    with pytest.raises(InputError, match="is not a seen class"):
        seen_statistics(logits, target, partition)


def test_statistics_without_a_gap_are_nan_not_an_error():
    single = seen_statistics(torch.randn(4, 3), [0, 0, 0, 0], ClassPartition(3, [0], [1]))
    assert single.gap.isnan().all()
    assert single.margin.isfinite().all()
    no_absent = seen_statistics(torch.randn(4, 3), [0, 1, 0, 1], ClassPartition(3, [0, 1]))
    assert no_absent.gap.isnan().all()
    assert (no_absent.margin == math.inf).all()


def test_pool_statistics_equal_plain_numbers(partition):
    logits, _ = random_logits(partition)
    found = pool_statistics(logits, partition)
    absent = logits[:, list(partition.absent)]
    assert torch.equal(found.margin, logits[:, list(partition.fixed)].double().amax(1) - absent.amax(1))
    assert torch.equal(found.top_absent, torch.tensor(partition.absent)[absent.argmax(1)])
    assert torch.equal(found.rows(found.margin < 0).top_absent, found.top_absent[found.margin < 0])


def test_feature_change_equals_plain_numbers():
    generator = torch.Generator().manual_seed(0)
    new, old = (torch.randn(20, 7, generator=generator) for _ in range(2))
    cosine, distance, norm = feature_change(new, old)
    for i, (a, b) in enumerate(zip(new.double().numpy(), old.double().numpy(), strict=True)):
        assert float(cosine[i]) == pytest.approx(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        assert float(distance[i]) == pytest.approx(np.linalg.norm(a - b))
        assert float(norm[i]) == pytest.approx(np.linalg.norm(b))
    same_cosine, unmoved, _ = feature_change(old, old)
    torch.testing.assert_close(same_cosine, torch.ones_like(same_cosine))
    assert (unmoved == 0).all()
    with pytest.raises(InputError, match="give both for the same images"):
        feature_change(new, old[:, :3])


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.77, 1.0])
def test_matching_quantile_equals_numpy(fraction):
    margin = torch.randn(101, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert matching_quantile(margin, fraction) == pytest.approx(np.quantile(margin.numpy(), fraction))


def test_matching_quantile_refuses():
    with pytest.raises(InputError, match="share between 0 and 1"):
        matching_quantile(torch.zeros(3), 1.5)
    with pytest.raises(InputError, match="at least one sample"):
        matching_quantile(torch.zeros(0), 0.5)


def test_nearest_class_mean_equals_scikit_learn(partition):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(6, 8, generator=generator)
    target = torch.arange(300) % 6
    features = centres[target] + torch.randn(300, 8, generator=generator)
    test_target = torch.arange(90) % 6
    test = centres[test_target] + torch.randn(90, 8, generator=generator)
    means = class_means(features, target, 6)
    # On unit vectors the nearest mean by cosine is the nearest normalised mean by distance.
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    reference = NearestCentroid().fit(unit.numpy(), target.numpy())
    reference.centroids_ = reference.centroids_ / np.linalg.norm(reference.centroids_, axis=1, keepdims=True)
    expected = reference.predict(torch.nn.functional.normalize(test.double(), dim=1).numpy())
    logits = cosine_logits(test, means)
    assert np.array_equal(logits.argmax(1).numpy(), expected)
    accuracy = partition_accuracy(logits, test_target, partition)["acc_all"]
    assert accuracy == pytest.approx(np.mean(expected == test_target.numpy()))


def test_class_without_gallery_images_is_never_predicted():
    means = class_means(torch.eye(3), torch.tensor([0, 1, 1]), 3)
    logits = cosine_logits(-torch.ones(5, 3), means)
    assert (logits[:, 2] == -2).all()
    assert (logits.argmax(1) != 2).all()
