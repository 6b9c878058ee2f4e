"""Objects from the configuration: calibrators say what they need, and what does not fit is refused."""

from __future__ import annotations

import pytest

from ftc import InputError
from ftc.assembly.components import build_calibrators, build_measures, build_method
from ftc.config.commands import TrainConfig
from ftc.finetune import Full, LinearProbe, SeenSoftmax
from tests.conftest import composed

# Title, lane, and whether it needs source, held-out samples, folds, other weights, and moves the head.
NEEDS = {
    "alg": ("ALG", "seen_only", False, False, False, False, False),
    "anchored": ("anchored", "seen_only", True, False, False, False, False),
    "misroute": ("misroute", "seen_only", True, True, False, False, False),
    "mixed_anchor": ("mixed anchor", "seen_only", True, True, False, False, False),
    "symmetric": ("symmetric misroute", "seen_only", True, True, False, False, False),
    "committee": ("committee", "seen_only", True, True, False, False, False),
    "weight_aligning": ("weight aligning", "seen_only", False, False, False, False, True),
    "pcv": ("PCV", "seen_only", False, True, True, False, False),
    "interpolated": ("interpolated", "seen_only", True, True, False, True, False),
    "fixed": ("fixed γ", "seen_only", False, False, False, False, False),
    "prior_matched": ("prior-matched", "unlabelled", False, False, False, False, False),
    "margin_mixture": ("margin mixture", "unlabelled", False, True, False, False, False),
    "expected_accuracy": ("expected accuracy", "unlabelled", True, True, False, False, False),
    "prototypes": ("prototypes", "unlabelled", True, True, False, False, True),
    "interpolated_prototypes": ("interpolated, prototypes", "unlabelled", True, True, False, True, True),
}


def test_every_calibrator_says_what_it_needs():
    config = composed(TrainConfig, "train", f"calibration.use=[{','.join(NEEDS)}]")
    assert set(config.calibration.calibrators) == set(NEEDS)
    built = build_calibrators(config)
    found = {
        name: (
            c.title,
            c.lane,
            c.source,
            c.held_out,
            c.folds is not None,
            c.weights is not None,
            c.moves_head,
        )
        for name, c in built.items()
    }
    assert found == NEEDS


def test_titles_tell_the_calibrators_of_the_study_apart():
    built = build_calibrators(composed(TrainConfig, "train", "calibration=study"))
    titles = [calibrator.title for calibrator in built.values()]
    assert len(set(titles)) == len(titles) == 21
    expected = {"PCV", "PCV, best overall", "PCV, balanced", "interpolated, α = 0.75, mixed anchor"}
    assert expected <= set(titles)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["calibration.use=[symmetric]", "data.readers.val=null"],
            "symmetric wants labelled seen images held",
        ),
        (
            ["calibration.use=[prior_matched]", "data.readers.val=null"],
            "prior_matched wants unlabelled target",
        ),
        (["objective=pseudo_ausuc"], "objective=pseudo_ausuc: wants the folds of pseudo cross-validation"),
        (
            ["objective=held_out_acc_seen", "calibration.use=[prior_matched]"],
            "set calibration.default to a seen-only calibrator",
        ),
        (
            ["calibration.use=[alg]", "calibration.calibrators.alg.on=eval"],
            "calibration.default=alg: looks at",
        ),
    ],
)
def test_calibrators_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        build_calibrators(composed(TrainConfig, "train", *overrides))


@pytest.mark.parametrize(
    ("choice", "kind"), [("full", Full), ("linear_probe", LinearProbe), ("seen_softmax", SeenSoftmax)]
)
def test_every_training_gets_a_method_of_its_own(choice, kind):
    config = composed(TrainConfig, "train", f"method={choice}")
    first, second = build_method(config), build_method(config)
    assert type(first) is type(second) is kind
    assert first is not second


def test_measures_have_intervals_where_replicates_are_asked_for():
    plain = composed(TrainConfig, "train").calibration
    asked = composed(TrainConfig, "train", "calibration.bootstrap.replicates=7").calibration
    assert build_measures(plain).bootstrap is None
    assert build_measures(asked).bootstrap.replicates == 7
    assert build_measures(plain).top_k == (1, 5)
