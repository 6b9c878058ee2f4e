"""Real worker processes: every rank computes what one process computes on all of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import multiprocessing

from ftc import ClassPartition
from ftc.data.sampler import ShardSampler
from ftc.functional.inputs import ABSENT, label_groups
from ftc.metrics import (
    BinnedSeenAbsentCurve,
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

PARTITION = ClassPartition(num_classes=6, seen=[0, 2, 4], absent=[1, 5])
SIZE = 101
# Of all ranks together: one process with 64, two with 32.
BATCH = 64


def data() -> tuple[torch.Tensor, ...]:
    logits, target = random_logits(PARTITION, SIZE)
    generator = torch.Generator().manual_seed(5)
    features, source_features = (torch.randn(SIZE, 4, generator=generator) for _ in range(2))
    return logits, target, features, source_features


def computed(rank: int, world_size: int) -> dict[str, Any]:
    """Every metric, updated in batches with this rank's samples."""
    logits, target, features, source_features = data()
    metrics = {
        "outcomes": OutcomeStream(PARTITION, (1, 3)),
        "curve": SeenAbsentCurve(PARTITION),
        "balanced": SeenAbsentCurve(PARTITION, "class"),
        "accuracy": PartitionAccuracy(PARTITION, 0.5, (1, 3)),
        "scale": LogitScale(PARTITION),
        "binned": BinnedSeenAbsentCurve(PARTITION, 3.0, 64),
        "seen": SeenStream(PARTITION),
        "gap": EvaluatedGapStream(PARTITION),
        "sums": ProbabilityStream(PARTITION),
    }
    ncm, drift, pool = NearestClassMean(6, 4), FeatureDrift(PARTITION), PoolStream(PARTITION)
    absent = label_groups(target, PARTITION) == ABSENT
    uneven = {name: SeenStream(PARTITION) for name in ("some_seen", "none_seen")}
    idle = {"idle_seen": SeenStream(PARTITION), "idle_outcomes": OutcomeStream(PARTITION, (1, 3))}
    for rows in torch.tensor(list(ShardSampler(SIZE, rank, world_size))).split(BATCH // world_size):
        for metric in metrics.values():
            metric.update(logits[rows], target[rows])
        ncm.update(features[rows], target[rows])
        drift.update(features[rows], source_features[rows], target[rows])
        pool.update(logits[rows])
    # Of several ranks the first gets all absent samples and nothing else.
    order = torch.cat([absent.nonzero()[:, 0], (~absent).nonzero()[:, 0]])
    share = order.tensor_split([int(absent.sum()), 80][: world_size - 1])[rank]
    uneven["some_seen"].update(logits[share], target[share])
    uneven["none_seen"].update(logits[absent], target[absent])
    if rank == world_size - 1:
        for metric in idle.values():
            metric.update(logits, target)
    others = {"ncm": ncm, "drift": drift, "pool": pool, **uneven, **idle}
    found = {name: metric.compute() for name, metric in {**metrics, **others}.items()}
    return {name: attrs.asdict(v) if attrs.has(type(v)) else v for name, v in found.items()}


def work(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    torch.save(computed(rank, world_size), Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return computed(0, 1)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_rank_computes_what_one_process_does(tmp_path, reference, world_size):
    # Workers start from a process that has the imports already.
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    multiprocessing.start_processes(
        work, (world_size, str(tmp_path)), nprocs=world_size, start_method="forkserver"
    )
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world_size)]
    for found in ranks:
        for name in ("curve", "balanced"):
            assert_equal(found[name], reference[name], ("gamma", "acc_seen", "acc_absent", "acc_all"))
            assert found[name]["num_samples"] == reference[name]["num_samples"]
        assert found["accuracy"] == reference["accuracy"]
        binned, expected = found["binned"], reference["binned"]
        assert_equal(binned["curve"], expected["curve"], ("gamma", "acc_seen", "acc_absent", "acc_all"))
        for bound in ("ausuc_error", "acc_error"):
            assert binned[bound] == expected[bound]
        for name, counts in reference["scale"]["histograms"].items():
            assert torch.equal(found["scale"]["histograms"][name], counts)
        assert found["scale"]["scales"] == pytest.approx(reference["scale"]["scales"])
        torch.testing.assert_close(found["ncm"], reference["ncm"])
        assert found["drift"] == pytest.approx(reference["drift"])
        for name in ("some_seen", "idle_seen", "idle_outcomes"):
            assert sorted(rows_of(found[name])) == sorted(rows_of(reference[name])), name
        # Samples that were dealt in turns come back in the order of the data.
        for name in ("outcomes", "seen", "pool", "sums"):
            assert rows_of(found[name]) == rows_of(reference[name]), name
        assert torch.equal(found["gap"], reference["gap"])
        assert len(found["none_seen"]["gap"]) == 0
    assert all(rows_of(found["outcomes"]) == rows_of(ranks[0]["outcomes"]) for found in ranks)


def assert_equal(found: Any, expected: Any, names: tuple[str, ...]) -> None:
    for name in names:
        assert torch.equal(found[name], expected[name]), name


def rows_of(statistics: Any) -> list[list[float]]:
    fields = [value for value in statistics.values() if isinstance(value, torch.Tensor)]
    return torch.cat([f.double().reshape(len(f), -1) for f in fields], 1).tolist()
