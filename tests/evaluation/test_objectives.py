"""What hyper-parameters may be chosen by knows no label of an absent class."""

from __future__ import annotations

import pytest
import torch

from ftc import ClassPartition
from ftc.calibrators import Fold, FoldEvidence
from ftc.evaluation.objectives import seen_only_scores
from ftc.functional import partition_accuracy, seen_absent_curve
from ftc.functional.accuracy import CRITERIA
from ftc.functional.statistics import keep_seen, seen_statistics
from ftc.results import OBJECTIVES
from tests.conftest import random_logits

PARTITION = ClassPartition(9, seen=[0, 2, 4, 6], absent=[1, 5, 7])


def scores(target: torch.Tensor, logits: torch.Tensor) -> dict[str, float]:
    """As a run makes them, of held-out logits that serve every fold as well."""
    z, y = keep_seen(logits, target, PARTITION)
    folds = tuple(Fold.from_logits(z, z, y, PARTITION, fold) for fold in ([0, 2], [0, 6]))
    deployed = seen_statistics(z, y, PARTITION), 0.4
    return seen_only_scores(PARTITION, (logits, target), deployed, [FoldEvidence("folds", folds)])


def test_seen_only_objectives_equal_plain_computations():
    logits, target = random_logits(PARTITION, 300)
    found = scores(target, logits)
    assert set(found) == {name for name in OBJECTIVES if "oracle" not in name}
    z, y = keep_seen(logits, target, PARTITION)
    seen = torch.tensor(PARTITION.seen)
    assert found["held_out_acc_seen_within"] == pytest.approx(
        float((seen[z[:, seen].argmax(1)] == y).double().mean())
    )
    assert found["held_out_acc_seen"] == partition_accuracy(z, y, PARTITION, 0.4)["acc_seen"]
    z[:, list(PARTITION.absent)] = -100
    areas = [
        seen_absent_curve(z, y, ClassPartition(9, fold, [c for c in PARTITION.seen if c not in fold])).ausuc
        for fold in ([0, 2], [0, 6])
    ]
    assert found["pseudo_ausuc"] == pytest.approx(sum(areas) / 2)


def test_labels_and_samples_of_absent_classes_reach_no_seen_only_objective():
    logits, target = random_logits(PARTITION, 300)
    found = scores(target, logits)
    absent = torch.isin(target, torch.tensor(PARTITION.absent))
    shuffled = target.clone()
    shuffled[absent] = target[absent].roll(1)
    assert not torch.equal(shuffled, target)
    assert scores(shuffled, logits) == found
    assert scores(target[~absent], logits[~absent]) == found


def test_objectives_say_what_they_are():
    bounds = {"oracle_ausuc", *(f"oracle_{criterion}" for criterion in CRITERIA)}
    assert {name for name in OBJECTIVES if "oracle" in name} == bounds
    assert seen_only_scores(PARTITION, None, None, []) == {}
