from __future__ import annotations

import io
import math
from dataclasses import replace

import attrs
import numpy as np
import pytest
import torch

from ftc import ClassPartition, InputError
from ftc.calibrators import (
    AnchoredLogitGap,
    Available,
    AverageLogitGap,
    Committee,
    ExpectedAccuracy,
    FixedGamma,
    FoldEvidence,
    Interpolated,
    MarginMixture,
    MisrouteMatching,
    MixedAnchor,
    NoEvidence,
    Oracle,
    OracleEvidence,
    PriorMatching,
    PseudoCrossValidation,
    SeenEvidence,
    SymmetricMisroute,
    UnlabelledEvidence,
    bootstrap_gamma,
    fit_all,
)
from ftc.functional import (
    PoolStatistics,
    SeenStatistics,
    average_logit_gap,
    partition_accuracy,
    pool_statistics,
)
from ftc.functional.gamma import non_target_gap
from ftc.functional.statistics import keep_seen
from tests.conftest import random_logits


@pytest.fixture
def seen_samples(partition):
    return keep_seen(*random_logits(partition, 300), partition)


@pytest.fixture
def source_logits(seen_samples):
    logits, _ = seen_samples
    return logits - 0.5 + torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def evidence(partition, seen_samples, source_logits):
    return SeenEvidence.from_logits(*seen_samples, partition, source_logits)


def test_alg_is_the_average_logit_gap(partition, seen_samples):
    logits, target = seen_samples
    found = AverageLogitGap().fit(SeenEvidence.from_logits(logits, target, partition))
    assert found.gamma == pytest.approx(average_logit_gap(logits, target, partition))
    assert found.uses == ("seen train",)


def test_alg_on_evaluated_samples_is_an_oracle_that_says_so(partition):
    logits, target = random_logits(partition)
    calibrator = AverageLogitGap(on="eval")
    evaluated = OracleEvidence.from_logits(logits, target, partition, "test labels")
    found = fit_all({"alg": calibrator}, Available(evaluated=evaluated))
    assert set(found) == {"alg_oracle"}
    assert found["alg_oracle"].lane == calibrator.lane == "oracle"
    assert found["alg_oracle"].uses == ("test labels (label leak)",)
    expected = np.nanmean(non_target_gap(logits, target, partition).numpy())
    assert found["alg_oracle"].gamma == pytest.approx(expected)


def test_anchored_subtracts_the_source_models_gap(partition, seen_samples, source_logits, evidence):
    logits, target = seen_samples
    expected = average_logit_gap(logits, target, partition) - average_logit_gap(
        source_logits, target, partition
    )
    found = AnchoredLogitGap().fit(evidence)
    assert found.gamma == pytest.approx(expected)
    assert found.uses == ("seen train", "source model")
    unchanged = SeenEvidence.from_logits(logits, target, partition, logits)
    assert AnchoredLogitGap().fit(unchanged).gamma == 0


def test_misroute_matching_sends_as_many_samples_away_as_the_source_model(evidence):
    gamma = MisrouteMatching().fit(evidence).gamma
    before = (evidence.source.margin < 0).double().mean()
    after = (evidence.fine_tuned.margin < gamma).double().mean()
    assert float(before) > 0.05
    assert float(after) == pytest.approx(float(before), abs=1 / len(evidence.fine_tuned))
    assert gamma == pytest.approx(np.quantile(evidence.fine_tuned.margin.numpy(), float(before)))


def test_mixed_anchor_is_the_mean_of_the_two(evidence):
    parts = [calibrator.estimate(evidence).gamma for calibrator in (MisrouteMatching(), AnchoredLogitGap())]
    assert parts[0] != parts[1]
    assert MixedAnchor().fit(evidence).gamma == pytest.approx(sum(parts) / 2)


def test_symmetric_misroute_follows_its_formula(partition, seen_samples, source_logits, evidence):
    logits, target = seen_samples
    errors = 1 - float((source_logits.argmax(1) == target).double().mean())
    fixed = torch.tensor(partition.fixed)
    wrong = [
        1 - float((fixed[z[:, fixed].argmax(1)] == target).double().mean()) for z in (source_logits, logits)
    ]
    rate = errors * 2 / 4 * (1 + min(wrong[1] / wrong[0], 1)) / 2
    expected = np.quantile(evidence.fine_tuned.margin.numpy(), rate)
    assert SymmetricMisroute().fit(evidence).gamma == pytest.approx(expected)


@pytest.mark.parametrize("calibrator", [AnchoredLogitGap, MisrouteMatching, MixedAnchor, SymmetricMisroute])
def test_anchored_without_source_says_what_to_do(partition, seen_samples, calibrator):
    with pytest.raises(InputError, match=r"source_logits\); give them, or leave the calibrator out"):
        calibrator().fit(SeenEvidence.from_logits(*seen_samples, partition))


@pytest.mark.parametrize("prior", [None, 0.0, 0.3, 1.0])
def test_prior_matching_sends_that_share_to_the_absent_classes(partition, prior):
    logits, _ = random_logits(partition, 1000)
    found = PriorMatching(prior).fit(UnlabelledEvidence.from_logits(logits, partition))
    share = (pool_statistics(logits, partition).margin < found.gamma).double().mean()
    expected = 2 / 5 if prior is None else prior
    assert float(share) == pytest.approx(expected, abs=0.002)
    assert found.details == {"absent_share": expected}
    assert found.lane == "unlabelled"


def test_a_committee_is_the_mean_of_its_members(partition, seen_samples):
    logits, target = seen_samples
    source = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(5))
    evidence = SeenEvidence.from_logits(logits, target, partition, source)
    members = (SymmetricMisroute(), MisrouteMatching(), AnchoredLogitGap("held_out"))
    mean = sum(member.fit(evidence).gamma for member in members) / 3
    assert Committee().fit(evidence).gamma == pytest.approx(mean)


def drawn_margins(share: float, size: int = 4000, seed: int = 0) -> tuple[UnlabelledEvidence, torch.Tensor]:
    """A pool and held-out seen samples of two groups that margins tell apart well, and who is absent."""
    generator = torch.Generator().manual_seed(seed)
    partition = ClassPartition(2, [0], [1])

    def margins(of_absent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn(2, len(of_absent), generator=generator, dtype=torch.float64)
        return 3 - 6 * of_absent.double() + noise[0], 6 - 5 * of_absent.double() + noise[1]

    def of_seen(margin: torch.Tensor) -> SeenStatistics:
        return SeenStatistics(
            torch.full_like(margin, math.nan), margin, torch.ones(len(margin), dtype=torch.bool)
        )

    def of_pool(margin: torch.Tensor) -> PoolStatistics:
        return PoolStatistics(margin, torch.ones(len(margin), dtype=torch.int64), -margin)

    is_absent = torch.rand(size, generator=generator) < share
    source, fine_tuned = margins(is_absent)
    seen_source, seen_fine_tuned = margins(torch.zeros(size))
    seen = SeenEvidence("seen val", of_seen(seen_fine_tuned), partition, of_seen(seen_source))
    pool = UnlabelledEvidence("pool", of_pool(fine_tuned), partition, of_pool(source), seen)
    return pool, is_absent


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_the_share_of_absent_images_is_recovered(share):
    evidence, is_absent = drawn_margins(share)
    true = float(is_absent.double().mean())
    assert PriorMatching("em").fit(evidence).details["absent_share"] == pytest.approx(true, abs=0.03)
    for calibrator in (PriorMatching("estimate"), MarginMixture("estimate"), ExpectedAccuracy()):
        found = calibrator.fit(evidence)
        assert found.details["absent_share"] == pytest.approx(true, abs=0.03), calibrator
        assert "seen val" in found.uses


@pytest.mark.parametrize(
    "calibrator", [PriorMatching(), PriorMatching("estimate"), MarginMixture(), ExpectedAccuracy()]
)
def test_groups_told_apart_by_margins_are_told_apart_by_gamma(calibrator):
    evidence, is_absent = drawn_margins(0.5)
    right = (evidence.fine_tuned.margin < calibrator.fit(evidence).gamma) == is_absent
    assert float(right.double().mean()) > 0.98


@pytest.mark.parametrize("calibrator", [PriorMatching("estimate"), MarginMixture(), ExpectedAccuracy()])
def test_what_compares_with_held_out_samples_asks_for_them(partition, calibrator):
    with pytest.raises(InputError, match="needs labelled seen samples held out of fine-tuning"):
        calibrator.fit(UnlabelledEvidence.from_logits(torch.randn(5, 6), partition))


def test_expected_accuracy_without_source_says_what_to_do(partition, seen_samples):
    seen = SeenEvidence.from_logits(*seen_samples, partition)
    with pytest.raises(InputError, match=r"source_logits\); give them, or leave the calibrator out"):
        ExpectedAccuracy().fit(UnlabelledEvidence.from_logits(torch.randn(5, 6), partition, seen=seen))


def test_oracle_is_the_best_accuracy_any_gamma_reaches(partition):
    logits, target = random_logits(partition)
    found = Oracle().fit(OracleEvidence.from_logits(logits, target, partition))
    best = partition_accuracy(logits, target, partition, found.gamma)["acc_all"]
    grid = torch.linspace(-5, 5, 401).tolist()
    assert best >= max(partition_accuracy(logits, target, partition, g)["acc_all"] for g in grid)
    assert found.lane == "oracle"


@pytest.mark.parametrize("calibrator", [Oracle, MarginMixture, ExpectedAccuracy])
def test_what_maximises_a_criterion_names_it(calibrator):
    plain = calibrator()
    assert calibrator(criterion="harmonic").title == f"{plain.title}, harmonic"
    with pytest.raises(InputError, match="criterion='best': choose from acc_all, harmonic, balanced"):
        calibrator(criterion="best")


def test_only_the_expected_overall_accuracy_gives_absent_classes_up():
    evidence, is_absent = drawn_margins(0.3)
    # Both models agree on one in ten of the leading absent classes.
    rare = (torch.arange(len(is_absent)) % 10 > 0).long()
    of_source = attrs.evolve(evidence.source, top_absent=evidence.source.top_absent - rare)
    evidence = replace(evidence, source=of_source)
    plain = ExpectedAccuracy(deployed=0.05).fit(evidence)
    kept = ExpectedAccuracy(criterion="harmonic").fit(evidence)
    assert kept.gamma > plain.gamma + 1
    assert set(kept.details) == {"absent_share", "expected_harmonic"}
    with pytest.raises(InputError, match="deployed=pool: does not matter to criterion=harmonic"):
        ExpectedAccuracy(deployed="pool", criterion="harmonic")


def test_balanced_oracle_is_the_best_class_balanced_accuracy(partition):
    logits, target = random_logits(partition)
    gamma = Oracle(average="class").fit(OracleEvidence.from_logits(logits, target, partition)).gamma

    def balanced(g: float) -> float:
        return partition_accuracy(logits, target, partition, g, average="class")["acc_all"]

    assert balanced(gamma) >= max(map(balanced, torch.linspace(-5, 5, 401).tolist()))


def test_fixed_gamma_uses_nothing():
    found = FixedGamma(1.25).fit(NoEvidence())
    assert (found.gamma, found.uses) == (1.25, ("nothing",))
    with pytest.raises(InputError, match="finite"):
        FixedGamma(float("nan"))


@pytest.mark.parametrize("inner", [MixedAnchor(), AverageLogitGap("held_out"), PriorMatching(0.3)])
def test_interpolated_delegates(partition, evidence, inner):
    outer = Interpolated(inner, alpha=0.5)
    assert (outer.evidence, outer.lane, outer.on, outer.source) == (
        inner.evidence,
        inner.lane,
        inner.on,
        inner.source,
    )
    given = evidence
    if inner.lane == "unlabelled":
        given = UnlabelledEvidence.from_logits(torch.randn(50, 6), partition)
    found, direct = outer.fit(given), inner.estimate(given)
    assert found.gamma == direct.gamma
    assert found.uses == tuple(dict.fromkeys((*direct.uses, "source model")))
    assert found.details == direct.details
    assert outer.weights.alpha == 0.5


@pytest.mark.parametrize(
    ("accuracy", "chosen"),
    [
        ({0.0: 0.80, 0.5: 0.92, 0.75: 0.93, 1.0: 0.93}, 0.5),
        ({0.0: 0.80, 0.5: 0.85, 0.75: 0.93, 1.0: 0.93}, 0.75),
        ({0.0: 0.90, 0.5: 0.50, 0.75: 0.40, 1.0: 0.30}, 0.0),
        ({0.0: 0.50, 0.5: 0.60, 0.75: 0.70, 1.0: 0.90}, 1.0),
    ],
)
def test_interpolation_goes_back_as_far_as_held_out_samples_allow(accuracy, chosen):
    hits = {alpha: torch.arange(100) < round(100 * value) for alpha, value in accuracy.items()}
    assert Interpolated(MixedAnchor(), tolerance=0.01).weights.choose(hits) == chosen


def test_interpolation_takes_no_weights_that_give_no_numbers():
    hits = {0.0: torch.ones(4, dtype=torch.bool), 0.5: torch.empty(0), 1.0: torch.empty(0)}
    assert Interpolated(MixedAnchor()).weights.choose(hits) == 0.0


def test_what_cannot_be_interpolated():
    with pytest.raises(InputError, match=r"alpha=1\.5"):
        Interpolated(MixedAnchor(), alpha=1.5)
    with pytest.raises(InputError, match="give one that estimates"):
        Interpolated(Interpolated(MixedAnchor()))
    with pytest.raises(InputError, match="give one that estimates"):
        Interpolated("alg")  # type: ignore[arg-type]


def test_fit_survives_a_checkpoint(evidence):
    calibrator = Interpolated(MixedAnchor(), alpha=0.75)
    assert calibrator.state_dict() == {}
    fitted = calibrator.fit(evidence)
    file = io.BytesIO()
    torch.save(calibrator.state_dict(), file)
    file.seek(0)
    restored = Interpolated(MixedAnchor(), alpha=0.75)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert restored.calibration == fitted
    restored.load_state_dict({})
    assert restored.calibration is None


def test_estimating_leaves_no_trace(evidence):
    calibrator = MixedAnchor()
    calibrator.estimate(evidence)
    assert calibrator.calibration is None


def test_bootstrap_interval_of_a_mean_is_the_normal_one(partition):
    samples = keep_seen(*random_logits(partition, 2000), partition)
    evidence = SeenEvidence.from_logits(*samples, partition)
    gap = evidence.fine_tuned.gap
    low, high = bootstrap_gamma(AverageLogitGap(), evidence, 2000, confidence=0.9)
    half = 1.645 * float(gap.std()) / math.sqrt(len(gap))
    assert low == pytest.approx(float(gap.mean()) - half, abs=0.1 * half)
    assert high == pytest.approx(float(gap.mean()) + half, abs=0.1 * half)


def test_bootstrap_keeps_pairs_and_repeats_by_seed(partition, evidence):
    # Resampled apart, the two models' gaps would differ; together they cancel.
    paired = SeenEvidence("seen val", evidence.fine_tuned, partition, evidence.fine_tuned)
    assert bootstrap_gamma(AnchoredLogitGap(), paired, 50) == (0.0, 0.0)
    first, again, other = (bootstrap_gamma(MixedAnchor(), evidence, 50, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first[0] < MixedAnchor().estimate(evidence).gamma < first[1]


def test_bootstrap_of_what_uses_no_data_is_a_point():
    assert bootstrap_gamma(FixedGamma(1.5), NoEvidence(), 10) == (1.5, 1.5)


def test_bootstrap_of_the_unlabelled_lane_brackets_the_estimate():
    evidence, _ = drawn_margins(0.5, 400)
    for calibrator in (PriorMatching(), MarginMixture(), ExpectedAccuracy()):
        low, high = bootstrap_gamma(calibrator, evidence, 40)
        assert low < calibrator.estimate(evidence).gamma < high


def test_bootstrap_refuses_too_few_replicates(evidence):
    with pytest.raises(InputError, match="replicates=1"):
        bootstrap_gamma(AverageLogitGap(), evidence, 1)


def test_seen_evidence_cannot_carry_absent_samples(partition, evidence):
    logits, target = random_logits(partition)
    with pytest.raises(InputError, match="is not a seen class"):
        SeenEvidence.from_logits(logits, target, partition)
    none = evidence.fine_tuned.rows(torch.empty(0, dtype=torch.int64))
    with pytest.raises(InputError, match="seen train: no seen sample"):
        SeenEvidence("seen train", none, partition)
    fewer = evidence.fine_tuned.rows(torch.arange(2))
    with pytest.raises(InputError, match="evaluate both on the same data"):
        SeenEvidence("seen train", evidence.fine_tuned, partition, fewer)


def test_nothing_is_refused(partition):
    pool = pool_statistics(torch.randn(3, 6), partition)
    with pytest.raises(InputError, match="no image in the unlabelled pool"):
        UnlabelledEvidence("pool", pool.rows(torch.empty(0, dtype=torch.int64)), partition)
    with pytest.raises(InputError, match="evaluate both on the same data"):
        UnlabelledEvidence("pool", pool, partition, pool.rows(torch.arange(2)))
    with pytest.raises(InputError, match="folds: no fold"):
        FoldEvidence("folds", ())


@pytest.mark.parametrize("calibrator", [AverageLogitGap(), AnchoredLogitGap(), MixedAnchor()])
def test_gaps_need_two_seen_classes(calibrator):
    single = ClassPartition(2, [0], [1])
    logits = torch.randn(4, 2)
    evidence = SeenEvidence.from_logits(logits, [0] * 4, single, logits)
    with pytest.raises(InputError, match=r"the partition has 1 and 1; use another"):
        calibrator.fit(evidence)
    assert math.isfinite(MisrouteMatching().fit(evidence).gamma)


@pytest.mark.parametrize(
    "calibrator", [AverageLogitGap(), AnchoredLogitGap(), MisrouteMatching(), SymmetricMisroute()]
)
@pytest.mark.parametrize("seen", [[0], [0, 1]])
def test_no_absent_class_leaves_nothing_to_calibrate(calibrator, seen):
    partition = ClassPartition(3, seen)
    logits = torch.randn(4, 3)
    evidence = SeenEvidence.from_logits(logits, [0] * 4, partition, logits)
    with pytest.raises(InputError, match="absent class"):
        calibrator.fit(evidence)


@pytest.mark.parametrize(
    ("name", "calibrator", "message"),
    [
        ("alg", AverageLogitGap(), "alg needs labelled seen training samples; give them"),
        ("misroute", MisrouteMatching(), "misroute needs labelled seen samples held out of fine-tuning"),
        ("mine", PriorMatching(), "mine needs an unlabelled pool of target images"),
        ("pcv", PseudoCrossValidation(), "pcv needs the folds of pseudo cross-validation"),
        ("leak", AverageLogitGap("eval"), "leak needs evaluated samples with labels"),
    ],
)
def test_missing_evidence_is_named(name, calibrator, message):
    with pytest.raises(InputError, match=message):
        fit_all({name: calibrator}, Available())


@pytest.mark.parametrize("prior", [-0.1, 1.1, "guess"])
@pytest.mark.parametrize("calibrator", [PriorMatching, MarginMixture, ExpectedAccuracy])
def test_prior_outside_the_unit_interval(calibrator, prior):
    with pytest.raises(InputError, match="share between 0 and 1"):
        calibrator(prior)


@pytest.mark.parametrize("calibrator", [AverageLogitGap, AnchoredLogitGap, MisrouteMatching, MixedAnchor])
def test_data_that_is_none_of_the_choices(calibrator):
    with pytest.raises(InputError, match="on='valid': choose from train, held_out"):
        calibrator("valid")
