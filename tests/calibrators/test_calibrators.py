from __future__ import annotations

import dataclasses

import pytest
import torch

from ftc import ClassPartition, InputError
from ftc.calibrators import (
    AnchoredLogitGap,
    AverageLogitGap,
    FixedGamma,
    NoEvidence,
    Oracle,
    OracleEvidence,
    PriorMatching,
    SeenEvidence,
    UnlabelledEvidence,
)
from ftc.functional import average_logit_gap, partition_accuracy
from ftc.functional.outcomes import margins
from tests.conftest import random_logits


@pytest.fixture
def seen_samples(partition):
    logits, target = random_logits(partition, 300)
    keep = torch.isin(target, torch.tensor(partition.seen))
    return logits[keep], target[keep]


def test_alg_is_the_average_logit_gap(partition, seen_samples):
    logits, target = seen_samples
    found = AverageLogitGap().fit(SeenEvidence.from_logits(logits, target, partition))
    assert found.gamma == pytest.approx(average_logit_gap(logits, target, partition))
    assert found.uses == ("seen train",)


def test_anchored_subtracts_the_source_models_gap(partition, seen_samples):
    logits, target = seen_samples
    source = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
    evidence = SeenEvidence.from_logits(logits, target, partition, source)
    expected = average_logit_gap(logits, target, partition) - average_logit_gap(source, target, partition)
    assert AnchoredLogitGap().fit(evidence).gamma == pytest.approx(expected)
    unchanged = SeenEvidence.from_logits(logits, target, partition, logits)
    assert AnchoredLogitGap().fit(unchanged).gamma == 0


def test_anchored_without_source_says_what_to_do(partition, seen_samples):
    with pytest.raises(InputError, match=r"trainer\.validate before trainer\.fit"):
        AnchoredLogitGap().fit(SeenEvidence.from_logits(*seen_samples, partition))


@pytest.mark.parametrize("prior", [None, 0.0, 0.3, 1.0])
def test_prior_matching_sends_that_share_to_the_absent_classes(partition, prior):
    logits, _ = random_logits(partition, 1000)
    gamma = PriorMatching(prior).fit(UnlabelledEvidence.from_logits(logits, partition)).gamma
    share = (margins(logits, partition) < gamma).double().mean()
    assert float(share) == pytest.approx(2 / 5 if prior is None else prior, abs=0.002)


def test_oracle_is_the_best_accuracy_any_gamma_reaches(partition):
    logits, target = random_logits(partition)
    gamma = Oracle().fit(OracleEvidence.from_logits(logits, target, partition)).gamma
    best = partition_accuracy(logits, target, partition, gamma)["acc_all"]
    grid = torch.linspace(-5, 5, 401).tolist()
    assert best >= max(partition_accuracy(logits, target, partition, g)["acc_all"] for g in grid)


def test_fixed_gamma_uses_nothing():
    assert FixedGamma(1.25).fit(NoEvidence()).gamma == 1.25
    with pytest.raises(InputError, match="finite"):
        FixedGamma(float("nan"))


def test_seen_evidence_cannot_carry_absent_samples(partition):
    logits, target = random_logits(partition)
    with pytest.raises(InputError, match="is not a seen class"):
        SeenEvidence.from_logits(logits, target, partition)
    with pytest.raises(InputError, match="no seen sample"):
        SeenEvidence("seen train", torch.empty(0))
    with pytest.raises(InputError, match="evaluate both on the same data"):
        SeenEvidence("seen train", torch.zeros(3), torch.zeros(2))


def test_evidence_types_have_no_room_for_labels():
    fields = {
        evidence: {field.name for field in dataclasses.fields(evidence)}
        for evidence in (SeenEvidence, UnlabelledEvidence)
    }
    assert fields[SeenEvidence] == {"origin", "gap", "source_gap"}
    assert fields[UnlabelledEvidence] == {"origin", "margin", "class_prior"}


def test_one_seen_class_is_refused():
    with pytest.raises(InputError, match="use another calibrator"):
        SeenEvidence.from_logits(torch.randn(2, 2), [0, 0], ClassPartition(2, [0], [1]))


@pytest.mark.parametrize("prior", [-0.1, 1.1])
def test_prior_outside_the_unit_interval(prior):
    with pytest.raises(InputError, match="share between 0 and 1"):
        PriorMatching(prior)
