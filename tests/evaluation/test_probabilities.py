"""Probabilities of a record: what temperatures may see, and whose numbers a stage has."""

from __future__ import annotations

import pytest
import torch

from ftc import ClassPartition
from ftc.evaluation.probabilities import probabilities
from ftc.functional import (
    classwise_ece,
    fit_temperature,
    logit_sums,
    matching_temperature,
    partition_accuracy,
    probability_metrics,
    reduce_logits,
)
from ftc.functional.statistics import keep_seen
from ftc.results import StageRecord
from tests.conftest import random_logits

PARTITION = ClassPartition(6, seen=[0, 2, 4], absent=[1, 5])
CALIBRATED = {
    "alg": StageRecord(gamma=1.0, uses=("seen train",), lane="seen_only"),
    "moved": StageRecord(gamma=0.5, uses=("seen val",), lane="seen_only"),
    "oracle": StageRecord(gamma=1.2, uses=("test labels",), lane="oracle"),
}


def outputs(scale: float) -> dict[str, torch.Tensor]:
    drawn = {split: random_logits(PARTITION, 150, seed)[0] for seed, split in enumerate(("test", "val"))}
    return {split: scale * logits for split, logits in drawn.items()}


@pytest.fixture
def logits() -> dict[str, dict[str, torch.Tensor]]:
    return {"source": outputs(1.0), "fine_tuned": outputs(3.0), "moved": outputs(2.0)}


@pytest.fixture
def target() -> dict[str, torch.Tensor]:
    return {split: random_logits(PARTITION, 150, seed)[1] for seed, split in enumerate(("test", "val"))}


def test_every_stage_equals_a_recomputation(logits, target):
    found = probabilities(logits, target, PARTITION, CALIBRATED, pool_from_val=True)
    assert list(found) == ["source", "fine_tuned", "alg", "moved", "oracle"]
    for name, gamma in {"source": 0.0, "fine_tuned": 0.0, "alg": 1.0, "moved": 0.5, "oracle": 1.2}.items():
        model = logits.get(name, logits["fine_tuned"])
        held_out = found[name].temperatures["held_out"]
        of_v = keep_seen(model["val"], target["val"], PARTITION)
        assert held_out.temperature == fit_temperature(*of_v, PARTITION, gamma)
        assert held_out.uses == ("seen val",)
        outcomes = reduce_logits(model["test"], target["test"], PARTITION)
        for temperature, measured in ((1.0, found[name]), (held_out.temperature, held_out)):
            sums = logit_sums(model["test"], target["test"], PARTITION, temperature)
            expected = probability_metrics(sums, outcomes, PARTITION, gamma)
            expected["classwise_ece_all"] = classwise_ece(
                model["test"], target["test"], PARTITION, gamma, temperature
            )
            assert measured.metrics == pytest.approx(expected)
            accuracy = partition_accuracy(model["test"], target["test"], PARTITION, gamma)
            for group, bins in measured.reliability.items():
                assert bins.mean_accuracy == pytest.approx(accuracy[f"acc_{group}"])
                gaps = [abs(c - a) for c, a in zip(bins.confidence, bins.accuracy, strict=True)]
                assert sum(gaps) / 15 == pytest.approx(measured.metrics[f"ece_{group}"])


def test_a_temperature_is_that_of_the_model_whose_head_is_divided(logits, target):
    # What is folded is W/T and (b + γ)/T: the plain logits of that model.
    scaled = probabilities(logits, target, PARTITION, CALIBRATED)["alg"].temperatures["held_out"]
    folded = logits["fine_tuned"]["test"].double()
    folded[:, list(PARTITION.absent)] += CALIBRATED["alg"].gamma
    folded /= scaled.temperature
    nll = float(torch.nn.functional.cross_entropy(folded, target["test"]))
    assert scaled.metrics["nll_all"] == pytest.approx(nll, rel=1e-6)
    before = partition_accuracy(logits["fine_tuned"]["test"], target["test"], PARTITION, 1.0)
    assert float((folded.argmax(1) == target["test"]).double().mean()) == pytest.approx(before["acc_all"])


def test_labels_of_absent_classes_reach_no_temperature(logits, target):
    def temperatures(labels):
        found = probabilities(logits, labels, PARTITION, CALIBRATED, pool_from_val=True)
        return {
            (name, key): scaled.temperature
            for name, stage in found.items()
            for key, scaled in stage.temperatures.items()
        }

    other = target["val"].clone()
    absent = torch.isin(other, torch.tensor(PARTITION.absent))
    other[absent] = 6 - other[absent]  # 1 ↔ 5
    assert not torch.equal(other, target["val"])
    shuffled = {"test": target["test"].flip(0), "val": other}
    assert temperatures(target) == temperatures(shuffled)
    assert ("alg", "pool") in temperatures(target)


def test_the_pools_temperature_matches_an_accuracy(logits, target):
    found = probabilities(logits, target, PARTITION, CALIBRATED, pool_from_val=True)
    assert "pool" not in found["source"].temperatures
    scaled = found["alg"].temperatures["pool"]
    assert scaled.uses == ("unlabelled pool", "seen val", "source model")
    pool = logits["fine_tuned"]["val"].double()
    pool[:, list(PARTITION.absent)] += 1.0
    expected = float((pool / scaled.temperature).softmax(1).amax(1).mean())
    again = matching_temperature(logits["fine_tuned"]["val"], PARTITION, 1.0, expected)
    assert again == pytest.approx(scaled.temperature)
    # What V and the pool tell is near what labels would.
    true = partition_accuracy(logits["fine_tuned"]["val"], target["val"], PARTITION, 1.0)["acc_all"]
    assert expected == pytest.approx(true, abs=0.2)


def test_only_temperatures_that_data_are_there_for(logits, target):
    no_val = {name: {"test": splits["test"]} for name, splits in logits.items()}
    assert not any(
        stage.temperatures for stage in probabilities(no_val, target, PARTITION, CALIBRATED).values()
    )
    assert set(probabilities(logits, target, PARTITION, CALIBRATED)["alg"].temperatures) == {"held_out"}
    del logits["source"]
    found = probabilities(logits, target, PARTITION, CALIBRATED, pool_from_val=True)
    assert set(found["alg"].temperatures) == {"held_out"}
    absent_only = {**target, "val": torch.full_like(target["val"], 5)}
    found = probabilities(logits, absent_only, PARTITION, CALIBRATED)
    assert not found["alg"].temperatures


def test_groups_without_samples(logits, target):
    seen = {**target, "test": torch.zeros_like(target["test"])}
    found = probabilities(logits, seen, PARTITION, {})["fine_tuned"]
    assert found.metrics["ece_absent"] is None and found.metrics["nll_absent"] is None
    assert set(found.reliability) == {"all", "seen"}


def test_constant_margins_tell_no_groups_apart(target):
    flat = {"test": torch.zeros(150, 6), "val": torch.zeros(150, 6)}
    found = probabilities({"source": flat, "fine_tuned": flat}, target, PARTITION, {}, pool_from_val=True)
    assert set(found["fine_tuned"].temperatures) == {"held_out"}
