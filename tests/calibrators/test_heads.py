"""Prototypes where held-out samples are few."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ftc import ClassPartition
from ftc.calibrators import (
    Calibration,
    FeatureEvidence,
    LinearHead,
    PriorMatching,
    Prototypes,
    SeenEvidence,
    SeenFeatures,
    UnlabelledEvidence,
    WeightAligning,
)
from ftc.functional.statistics import keep_seen

PARTITION = ClassPartition(5, seen=[0, 1], absent=[2, 3, 4])


def evidence(held_out: torch.Tensor) -> FeatureEvidence:
    """Features around the unit vectors, and V of these labels."""
    generator = torch.Generator().manual_seed(0)
    head = LinearHead(2 * torch.eye(5), torch.zeros(5))

    def features(target: torch.Tensor) -> torch.Tensor:
        return torch.eye(5)[target] + 0.5 * torch.randn(len(target), 5, generator=generator)

    pool, val, train = (features(y) for y in (torch.arange(300) % 5, held_out, torch.arange(20) % 2))
    seen = SeenEvidence.from_logits(
        *keep_seen(head.logits(val), held_out, PARTITION), PARTITION, origin="seen val"
    )
    unlabelled = UnlabelledEvidence.from_logits(head.logits(pool), PARTITION, seen=seen)
    return FeatureEvidence(
        "unlabelled val",
        head,
        PARTITION,
        pool,
        SeenFeatures(train, torch.arange(20) % 2),
        SeenFeatures(val, held_out),
        unlabelled,
    )


def fitted(held_out: torch.Tensor, shrinkage: float = 1.0) -> Calibration:
    return Prototypes(PriorMatching(), shrinkage=shrinkage).fit(evidence(held_out))


def test_the_head_moves_where_held_out_samples_tell_how_far():
    found = fitted(torch.arange(40) % 2)
    assert found.details["strength"] > 0
    assert found.details["shrinkage"] > 0
    assert not torch.equal(found.head.weight, 2 * torch.eye(5))


@pytest.mark.parametrize("held_out", [[0, 1], [0, 0, 0, 1], [1, 1, 1]])
def test_the_head_stays_where_held_out_samples_are_too_few_to_tell(held_out):
    found = fitted(torch.tensor(held_out))
    assert torch.equal(found.head.weight, 2 * torch.eye(5))
    assert found.details["strength"] == 0.0
    # What is infinite has no place in results.json.
    assert "shrinkage" not in found.details


def test_means_that_are_taken_as_they_are_need_no_telling():
    found = fitted(torch.tensor([0, 1]), shrinkage=0.0)
    assert found.details["shrinkage"] == 0.0
    assert bool(found.head.weight.isfinite().all())


def test_a_fit_with_its_head_is_kept_in_plain_types(tmp_path):
    calibrator, other = Prototypes(PriorMatching()), Prototypes(PriorMatching())
    found = calibrator.fit(evidence(torch.arange(40) % 2))
    torch.save(calibrator.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.calibration is not None and other.calibration.head is not None
    assert torch.equal(other.calibration.head.weight, found.head.weight)
    without = {name: value for name, value in calibrator.state_dict().items() if name != "head"}
    WeightAligning().load_state_dict(without)
    assert dataclasses.replace(other.calibration, head=None) == dataclasses.replace(found, head=None)
