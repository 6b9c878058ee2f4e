"""Pseudo cross-validation: the draw of the folds, and each fold's γ against brute force."""

from __future__ import annotations

import math

import pytest
import torch

from ftc import ClassPartition, InputError
from ftc.calibrators import Fold, FoldEvidence, FoldPlan, PseudoCrossValidation, bootstrap_gamma
from ftc.functional import seen_absent_curve
from ftc.functional.statistics import keep_seen
from tests.conftest import random_logits
from tests.functional.test_curve import brute_accuracy

PARTITION = ClassPartition(9, seen=[0, 2, 4, 6, 8], absent=[1, 5, 7])


@pytest.fixture
def samples():
    logits, target = keep_seen(*random_logits(PARTITION, 300), PARTITION)
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    return logits, 0.5 * logits + noise, target


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("folds", [1, 3, 10])
def test_folds_are_distinct_and_have_two_sides(share, folds):
    drawn = FoldPlan(folds, share).draw(PARTITION)
    assert len(drawn) == folds
    choices = math.comb(5, len(drawn[0]))
    assert len({tuple(fold) for fold in drawn}) == min(folds, choices)
    for fold in drawn:
        assert 0 < len(fold) < 5
        assert set(fold) < set(PARTITION.seen)
        assert fold == sorted(fold)


def test_draws_repeat_by_seed_and_begin_alike():
    assert FoldPlan(6, seed=4).draw(PARTITION) == FoldPlan(6, seed=4).draw(PARTITION)
    assert FoldPlan(6, seed=4).draw(PARTITION)[:2] == FoldPlan(2, seed=4).draw(PARTITION)
    assert len({str(FoldPlan(3, seed=seed).draw(PARTITION)) for seed in range(5)}) == 5
    # A draw that a later version must not change: cached folds are named by it.
    assert FoldPlan(2).draw(PARTITION) == [[4, 6], [0, 4]]


def test_folds_may_be_shorter_than_the_fine_tuning():
    assert FoldPlan().epochs(10) == 10
    assert [FoldPlan(length=length).epochs(10) for length in (0.5, 0.34, 0.01)] == [5, 3, 1]


def test_two_seen_classes_give_two_folds():
    drawn = FoldPlan(2).draw(ClassPartition(3, [0, 1], [2]))
    assert sorted(drawn) == [[0], [1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 0}, "folds=0"),
        ({"share": 0.0}, r"share=0\.0"),
        ({"share": 1.0}, r"share=1\.0"),
        ({"length": 0.0}, r"length=0\.0"),
        ({"length": 1.5}, r"length=1\.5"),
    ],
)
def test_plans_that_are_none(arguments, message):
    with pytest.raises(InputError, match=message):
        FoldPlan(**arguments)


def test_a_single_seen_class_cannot_be_split():
    with pytest.raises(InputError, match="needs two seen classes"):
        FoldPlan().draw(ClassPartition(3, [0], [1]))


def test_nothing_is_sent_to_true_absent_columns(samples):
    logits, source, target = samples
    tempting = logits.clone()
    tempting[:, list(PARTITION.absent)] += 100
    fold = Fold.from_logits(tempting, source, target, PARTITION, [0, 4])
    plain = Fold.from_logits(logits, source, target, PARTITION, [0, 4])
    for name in ("margin", "threshold", "within"):
        assert torch.equal(getattr(fold.outcomes, name), getattr(plain.outcomes, name))
    assert fold.partition.absent == (2, 6, 8)
    assert tempting[0, 1] == logits[0, 1] + 100
    # Without those columns at all, everything is the same.
    kept = [c for c in range(9) if c not in PARTITION.absent]
    smaller = ClassPartition(6, [kept.index(c) for c in (0, 4)], [kept.index(c) for c in (2, 6, 8)])
    relabelled = torch.tensor([kept.index(c) for c in target.tolist()])
    curve = seen_absent_curve(logits[:, kept], relabelled, smaller)
    assert torch.equal(curve.margin, fold.outcomes.margin.unique())


def test_folds_refuse_what_they_must_not_see(samples):
    logits, source, target = samples
    strange = target.clone()
    strange[3] = 5
    with pytest.raises(InputError, match="label 5 of row 3 is not a seen class"):
        Fold.from_logits(logits, source, strange, PARTITION, [0, 4])
    for pseudo_seen in ([0, 1], list(PARTITION.seen)):
        with pytest.raises(InputError, match="name some of the seen classes"):
            Fold.from_logits(logits, source, target, PARTITION, pseudo_seen)


def brute_gamma(logits, source, target, pseudo_seen, criterion):
    """The best candidate by the criterion, all accuracies recomputed for every γ."""
    fold = ClassPartition(9, pseudo_seen, [c for c in PARTITION.seen if c not in pseudo_seen])
    without = [z.clone().numpy() for z in (logits, source)]
    for z in without:
        z[:, list(PARTITION.absent)] = -1e6
    y = target.numpy()
    candidates = []
    for gamma in seen_absent_curve(without[0], y, fold).gamma.tolist():
        found = brute_accuracy(fold, without[0], y, gamma)
        seen, absent = found["acc_seen"], found["acc_absent"]
        scores = {
            "acc_all": found["acc_all"],
            "balanced": (seen + absent) / 2,
            "harmonic": 2 * seen * absent / (seen + absent) if seen + absent else 0.0,
            "source_floor": found["acc_all"],
        }
        candidates.append((scores[criterion], absent, gamma))
    if criterion == "source_floor":
        floor = brute_accuracy(fold, without[1], y, 0.0)["acc_absent"]
        candidates = [c for c in candidates if c[1] >= floor] or candidates
    best = max(score for score, _, _ in candidates)
    return min((g for score, _, g in candidates if score == pytest.approx(best, abs=1e-12)), key=abs)


@pytest.mark.parametrize("criterion", ["acc_all", "balanced", "harmonic", "source_floor"])
def test_gamma_is_the_mean_of_each_folds_best(samples, criterion):
    logits, source, target = (part[:90] for part in samples)
    calibrator = PseudoCrossValidation(folds=3, criterion=criterion)
    drawn = calibrator.folds.draw(PARTITION)
    folds = tuple(Fold.from_logits(logits, source, target, PARTITION, fold) for fold in drawn)
    found = calibrator.fit(FoldEvidence("seen train, seen val", folds))
    expected = [brute_gamma(logits, source, target, fold, criterion) for fold in drawn]
    assert [found.details[f"gamma_fold_{i}"] for i in range(3)] == pytest.approx(expected)
    assert found.gamma == pytest.approx(sum(expected) / 3)
    assert found.uses == ("seen train, seen val", "source model")


def test_the_floor_of_the_source_model_binds(samples):
    logits, _, target = samples
    shifted = logits.clone()
    shifted[:, [2, 6, 8]] += 1.5
    free, floored = (
        PseudoCrossValidation(1)
        .estimate(FoldEvidence("folds", (Fold.from_logits(logits, z, target, PARTITION, [0, 4]),)))
        .gamma
        for z in (logits - 100 * torch.nn.functional.one_hot(target, 9), shifted)
    )
    assert free < 1 < 1.4 < floored


def test_bootstrap_resamples_every_fold(samples):
    fold = Fold.from_logits(*samples, PARTITION, [0, 4])
    evidence = FoldEvidence("seen val", (fold, fold))
    calibrator = PseudoCrossValidation(2, criterion="acc_all")
    low, high = bootstrap_gamma(calibrator, evidence, 60)
    assert low < calibrator.estimate(evidence).gamma < high


def test_unknown_criterion():
    with pytest.raises(InputError, match="choose from acc_all, harmonic, balanced, source_floor"):
        PseudoCrossValidation(criterion="best")  # type: ignore[arg-type]
