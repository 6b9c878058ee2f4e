"""Labels of absent classes reach no method; absent-class samples reach none of the seen-only lane."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch

import ftc.calibrators
from ftc import ClassPartition
from ftc.calibrators import (
    AnchoredLogitGap,
    Available,
    AverageLogitGap,
    Calibrator,
    Committee,
    ExpectedAccuracy,
    FeatureEvidence,
    FixedGamma,
    Fold,
    FoldEvidence,
    HeadEvidence,
    Interpolated,
    LinearHead,
    MarginMixture,
    MisrouteMatching,
    MixedAnchor,
    Oracle,
    OracleEvidence,
    PriorMatching,
    Prototypes,
    PseudoCrossValidation,
    SeenEvidence,
    SeenFeatures,
    SymmetricMisroute,
    UnlabelledEvidence,
    WeightAligning,
    fit_all,
)
from ftc.errors import InputError
from ftc.functional.accuracy import CRITERIA
from ftc.functional.statistics import keep_seen
from tests.conftest import random_logits

PARTITION = ClassPartition(9, seen=[0, 2, 4, 6], absent=[1, 5, 7, 8])
PCV = {criterion: PseudoCrossValidation(2, criterion=criterion) for criterion in ("source_floor", *CRITERIA)}
SEEN_ONLY = {
    "alg": AverageLogitGap(),
    "alg_held_out": AverageLogitGap("held_out"),
    "anchored": AnchoredLogitGap(),
    "misroute": MisrouteMatching(),
    "mixed_anchor": MixedAnchor(),
    "symmetric": SymmetricMisroute(),
    "committee": Committee(),
    "interpolated": Interpolated(MixedAnchor()),
    "weight_aligning": WeightAligning(),
    "fixed": FixedGamma(0.5),
    **PCV,
}
UNLABELLED = {
    "prior_matched": PriorMatching(),
    "prior_estimated": PriorMatching("estimate"),
    "prior_em": PriorMatching("em"),
    "prototypes": Prototypes(),
    "interpolated_prototypes": Interpolated(Prototypes()),
    **{f"margin_mixture_{criterion}": MarginMixture(criterion=criterion) for criterion in CRITERIA},
    **{f"expected_accuracy_{criterion}": ExpectedAccuracy(criterion=criterion) for criterion in CRITERIA},
}
ORACLES = {f"oracle_{criterion}": Oracle(criterion) for criterion in CRITERIA} | {
    "leak": AverageLogitGap("eval")
}
HEAD = LinearHead(torch.eye(9), torch.zeros(9))
Split = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def split(seed: int, size: int = 400) -> Split:
    """Fine-tuned logits, source logits and labels."""
    logits, target = random_logits(PARTITION, size, seed)
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed + 100))
    return logits, logits + noise, target


def permuted(data: Split) -> Split:
    """The same logits, labels of absent classes shuffled among themselves."""
    logits, source, target = data
    rows = torch.isin(target, torch.tensor(PARTITION.absent)).nonzero()[:, 0]
    shuffled = target.clone()
    shuffled[rows] = target[rows.roll(1)]
    assert not torch.equal(shuffled, target)
    return logits, source, shuffled


def without_absent(data: Split) -> Split:
    keep = ~torch.isin(data[2], torch.tensor(PARTITION.absent))
    return data[0][keep], data[1][keep], data[2][keep]


def available(train: Split, val: Split) -> Available:
    """All evidence, as a run makes it of these two splits."""

    def seen(data: Split, origin: str) -> SeenEvidence:
        logits, target = keep_seen(data[0], data[2], PARTITION)
        source, _ = keep_seen(data[1], data[2], PARTITION)
        return SeenEvidence.from_logits(logits, target, PARTITION, source, origin)

    logits, target = keep_seen(val[0], val[2], PARTITION)
    source, _ = keep_seen(val[1], val[2], PARTITION)
    folds = {
        calibrator.folds: FoldEvidence(
            "folds",
            tuple(
                Fold.from_logits(logits, source, target, PARTITION, fold)
                for fold in calibrator.folds.draw(PARTITION)
            ),
        )
        for calibrator in PCV.values()
    }
    held_out = seen(val, "seen val")
    pool = UnlabelledEvidence.from_logits(val[0], PARTITION, val[1], "unlabelled val", held_out)
    return Available(
        {"train": seen(train, "seen train"), "held_out": held_out},
        pool,
        folds,
        OracleEvidence.from_logits(val[0], val[2], PARTITION, "val labels"),
        HeadEvidence("head", HEAD, PARTITION),
        FeatureEvidence(
            "unlabelled val",
            HEAD,
            PARTITION,
            pool=val[0],  # the head makes them their own logits
            train=SeenFeatures.kept(train[0], train[2], PARTITION),
            held_out=SeenFeatures.kept(val[0], val[2], PARTITION),
            unlabelled=pool,
        ),
    )


def fits(calibrators, train: Split, val: Split) -> dict[str, list[float]]:
    """γ̂, and the numbers of the head where that moved, by calibrator."""
    found = fit_all(calibrators, available(train, val))
    heads = {name: c.head for name, c in found.items() if c.head is not None}
    numbers = {name: [*head.weight.flatten().tolist(), *head.bias.tolist()] for name, head in heads.items()}
    return {name: [calibration.gamma, *numbers.get(name, [])] for name, calibration in found.items()}


@pytest.fixture
def data():
    return split(0), split(1)


def test_every_calibrator_is_among_those_tested():
    exported = {
        value
        for value in vars(ftc.calibrators).values()
        if inspect.isclass(value) and issubclass(value, Calibrator) and not inspect.isabstract(value)
    }
    assert exported == {type(calibrator) for calibrator in (SEEN_ONLY | UNLABELLED | ORACLES).values()}
    for lane, calibrators in (("seen_only", SEEN_ONLY), ("unlabelled", UNLABELLED), ("oracle", ORACLES)):
        assert {calibrator.lane for calibrator in calibrators.values()} == {lane}


def test_labels_of_absent_classes_reach_no_method(data):
    methods = SEEN_ONLY | UNLABELLED
    assert fits(methods, *data) == fits(methods, *map(permuted, data))


def test_absent_samples_reach_no_seen_only_method(data):
    assert fits(SEEN_ONLY, *data) == fits(SEEN_ONLY, *map(without_absent, data))


def test_oracles_do_see_absent_labels(data):
    before, after = fits(ORACLES, *data), fits(ORACLES, *map(permuted, data))
    assert set(before) == {*ORACLES, "leak_oracle"} - {"leak"}
    assert all(before[name] != after[name] for name in before)


def test_unlabelled_methods_do_see_absent_images(data):
    before, after = fits(UNLABELLED, *data), fits(UNLABELLED, *map(without_absent, data))
    assert all(before[name] != after[name] for name in before)


def test_every_result_says_its_lane(data):
    found = fit_all(SEEN_ONLY | UNLABELLED | ORACLES, available(*data))
    for name, calibration in found.items():
        lane = "oracle" if "oracle" in name else "unlabelled" if name in UNLABELLED else "seen_only"
        assert calibration.lane == lane, name
        assert any("unlabelled" in use for use in calibration.uses) == (lane == "unlabelled"), name


def test_evidence_of_methods_has_no_room_for_labels():
    fields = {
        evidence: {field.name for field in dataclasses.fields(evidence)}
        for evidence in (SeenEvidence, UnlabelledEvidence, HeadEvidence, FeatureEvidence, SeenFeatures)
    }
    assert fields[SeenEvidence] == {"origin", "fine_tuned", "partition", "source"}
    assert fields[UnlabelledEvidence] == {"origin", "fine_tuned", "partition", "source", "seen"}
    assert fields[HeadEvidence] == {"origin", "head", "partition"}
    of_features = {"origin", "head", "partition", "pool", "train", "held_out", "unlabelled"}
    assert fields[FeatureEvidence] == of_features
    # The one field of labels, and all of them are of seen classes.
    assert fields[SeenFeatures] == {"features", "target"}


def test_labelled_features_are_of_seen_classes_alone(data):
    logits, _, target = data[0]
    kept = SeenFeatures.kept(logits, target, PARTITION)
    assert set(kept.target.tolist()) == set(PARTITION.seen)
    assert torch.equal(kept.features, logits[torch.isin(target, torch.tensor(PARTITION.seen))])


def test_without_a_pool_prototypes_refuse(data):
    evidence = dataclasses.replace(available(*data), features=None)
    with pytest.raises(InputError, match="prototypes needs features of an unlabelled pool"):
        fit_all({"prototypes": Prototypes()}, evidence)
