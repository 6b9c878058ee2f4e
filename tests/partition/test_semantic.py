from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering

from ftc import ClassPartition, InputError
from ftc.partition.semantic import semantic_partition

KINDS = ("near", "far")


def groups(sizes, seed=0, dim=16):
    """Class means in well separated groups, (C, D), and the group of each, in shuffled order."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.linalg.qr(torch.randn(dim, len(sizes), generator=generator))[0].T
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    group = group[torch.randperm(len(group), generator=generator)]
    noise = 0.05 * torch.randn(len(group), dim, generator=generator)
    return centres[group] + noise, group


def gap(partition, means):
    """Mean cosine distance from seen classes to their nearest absent class."""
    directions = torch.nn.functional.normalize(means.double(), dim=1)
    distances = 1 - directions[list(partition.seen)] @ directions[list(partition.absent)].T
    return float(distances.min(dim=1).values.mean())


@st.composite
def requests(draw):
    num_classes = draw(st.integers(1, 24))
    columns = st.sets(st.integers(0, num_classes - 1), min_size=1)
    candidates = sorted(draw(columns), key=lambda c: (c * 7 + 3) % num_classes)
    num_seen = draw(st.integers(1, len(candidates)))
    num_absent = draw(st.none() | st.integers(0, len(candidates) - num_seen))
    means = np.random.default_rng(draw(st.integers(0, 9))).normal(size=(num_classes, 5))
    # Some classes are alike.
    means[sorted(draw(columns))] = means[0] if draw(st.booleans()) else means[-1]
    return torch.from_numpy(means).float(), candidates, num_classes, num_seen, num_absent


@settings(max_examples=100)
@given(kind=st.sampled_from(KINDS), request=requests(), seed=st.integers(0, 99), factor=st.floats(1e-3, 1e3))
def test_sizes_are_exact_and_only_directions_count(kind, request, seed, factor):
    means, candidates, num_classes, num_seen, num_absent = request
    found = semantic_partition(kind, means, candidates, num_classes, num_seen, num_absent, seed)
    assert found.num_classes == num_classes
    assert len(found.seen) == num_seen
    assert len(found.absent) == (len(candidates) - num_seen if num_absent is None else num_absent)
    assert {*found.seen, *found.absent} <= set(candidates)
    again = semantic_partition(kind, means, candidates[::-1], num_classes, num_seen, num_absent, seed)
    assert found == again
    powers = torch.tensor([2.0 ** (c % 5) for c in range(num_classes)])[:, None]
    for scaled in (means.double() * factor, means * powers):
        assert found == semantic_partition(kind, scaled, candidates, num_classes, num_seen, num_absent, seed)


@pytest.mark.parametrize("sizes", [[5, 5, 5, 5], [2, 3, 4, 5, 6], [6, 6], [2] * 10])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_near_is_nearer_than_random_is_nearer_than_far(sizes, share):
    means, _ = groups(sizes)
    size, num_seen = len(means), round(share * len(means))
    mean = {
        kind: np.mean(
            [
                gap(semantic_partition(kind, means, range(size), size, num_seen, None, s), means)
                for s in range(20)
            ]
        )
        for kind in KINDS
    }
    random = np.mean([gap(ClassPartition.random(size, num_seen, seed=s), means) for s in range(20)])
    assert mean["near"] < random < mean["far"]


@pytest.mark.parametrize("seed", range(10))
def test_far_keeps_groups_whole_and_near_splits_them(seed):
    means, group = groups([4, 4, 4, 4, 4, 4], seed)
    near, far = (semantic_partition(kind, means, range(24), 24, 12, None, seed) for kind in KINDS)
    members = [set(torch.where(group == g)[0].tolist()) for g in range(6)]
    assert all(len(m & set(far.seen)) in (0, 4) for m in members)
    assert all(len(m & set(near.seen)) == 2 for m in members)


@pytest.mark.parametrize("num_seen", [3, 7, 10, 15])
@pytest.mark.parametrize("seed", range(5))
def test_at_any_height_far_cuts_one_cluster_and_near_shares_out_all(num_seen, seed):
    means = torch.from_numpy(np.random.default_rng(seed).normal(size=(18, 6)))
    near, far = (semantic_partition(kind, means, range(18), 18, num_seen, None, seed) for kind in KINDS)
    for count in range(1, 19):
        labels = AgglomerativeClustering(count, metric="cosine", linkage="average").fit_predict(means)
        clusters = [set(np.flatnonzero(labels == label)) for label in range(count)]
        assert sum(0 < len(c & set(far.seen)) < len(c) for c in clusters) <= 1
        for cluster in clusters:
            assert abs(len(cluster & set(near.seen)) - len(cluster) * num_seen / 18) < 1


def test_seeds_repeat_and_differ():
    means, _ = groups([3, 4, 5, 6])
    for kind in KINDS:
        splits = [semantic_partition(kind, means, range(18), 18, 9, None, seed) for seed in range(20)]
        assert splits == [semantic_partition(kind, means, range(18), 18, 9, None, seed) for seed in range(20)]
        assert len({p.seen for p in splits}) > 5
    drawn = [semantic_partition("far", means, range(18), 18, 6, 6, seed) for seed in range(20)]
    assert len({p.others for p in drawn}) > 15


def test_splits_of_seed_0_never_change():
    # Published results name splits by seed: a change here would silently rename them.
    means = torch.from_numpy(np.random.default_rng(0).normal(size=(10, 4)))
    found = {kind: semantic_partition(kind, means, range(10), 10, 4, 5, 0).seen for kind in KINDS}
    assert found == {"near": (1, 3, 4, 8), "far": (2, 3, 6, 7)}


def test_only_candidates_need_a_mean():
    means, _ = groups([3, 3])
    means[2] = float("nan")
    found = semantic_partition("near", means, [0, 1, 3, 4, 5], 6, 2, 3, 0)
    assert found.others == (2,)
    for missing in (0.0, float("nan"), float("inf")):
        means[2] = missing
        with pytest.raises(InputError, match=r"partition.kind=near: class 2 has no mean of source features"):
            semantic_partition("near", means, range(6), 6, 3, None, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("close", torch.ones(4, 2), range(4), 4, 2, None, 0), "partition.kind=close: choose near or far"),
        (("far", torch.ones(3, 2), range(4), 4, 2, None, 0), r"shape \(3, 2\); give a row for each of 4"),
        (("far", torch.ones(4), range(4), 4, 2, None, 0), r"shape \(4,\)"),
        (("far", torch.ones(4, 2), [0, 1], 4, 2, 1, 0), "num_seen=2 and num_absent=1 do not fit"),
        (("far", torch.ones(4, 2), [0, 9], 4, 1, 1, 0), "column 9 is outside the head"),
    ],
)
def test_bad_requests_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        semantic_partition(*arguments)
