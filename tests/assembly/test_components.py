"""Objects from the configuration: calibrators say what they need, and what does not fit is refused."""

from __future__ import annotations

import inspect

import pytest

import ftc.finetune
from ftc import InputError
from ftc.assembly.components import build_calibrators, build_classifier, build_measures, build_method
from ftc.cli.launch import conf_dir
from ftc.config.commands import TrainConfig
from ftc.finetune import Method
from ftc.partition import HeadColumns
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


METHODS = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml") if path.stem != "options")


@pytest.mark.parametrize("choice", METHODS)
def test_every_training_gets_a_method_of_its_own(choice):
    config = composed(TrainConfig, "train", f"method={choice}")
    first, second = build_method(config), build_method(config)
    assert isinstance(first, Method) and type(first) is type(second)
    assert first is not second
    # The file has every argument, with its default.
    arguments = {k: v for k, v in config.method.items() if k != "_target_"}
    own = inspect.signature(type(first)).parameters.values()
    shared = inspect.signature(Method).parameters.values()
    defaults = {p.name: p.default for p in (*own, *shared) if p.kind is not p.VAR_KEYWORD}
    assert arguments == defaults


def test_there_is_a_choice_for_every_method():
    named = {composed(TrainConfig, "train", f"method={choice}").method["_target_"] for choice in METHODS}
    public = (getattr(ftc.finetune, name) for name in ftc.finetune.__all__)
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Method)} - {Method}
    assert named == {f"ftc.finetune.{kind.__name__}" for kind in kinds}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("method=lora", "trainer=fsdp"), "method=ftc.finetune.LoRA: needs whole weights in every process"),
        (
            ("method=oracle_all", "objective=pseudo_ausuc"),
            "objective=pseudo_ausuc: would choose a model that",
        ),
        (
            ("method=lwf", "method.columns=most"),
            "method=ftc.finetune.LwF: .*columns=most: choose absent, seen",
        ),
    ],
)
def test_methods_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        build_method(composed(TrainConfig, "train", *overrides))


def test_a_target_that_is_no_method_is_refused():
    config = composed(TrainConfig, "train")
    other = config.model_copy(update={"method": {"_target_": "ftc.calibrators.MixedAnchor"}})
    with pytest.raises(InputError, match=r"method=ftc\.calibrators\.MixedAnchor: is no method; choose full"):
        build_method(other)


def test_gradients_can_be_checkpointed_where_the_model_can():
    config = composed(TrainConfig, "train", "grad_checkpointing=true")
    classifier = build_classifier(config, HeadColumns(map(str, range(10))), 10)
    assert classifier.backbone.grad_checkpointing


def test_measures_have_intervals_where_replicates_are_asked_for():
    plain = composed(TrainConfig, "train").calibration
    asked = composed(TrainConfig, "train", "calibration.bootstrap.replicates=7").calibration
    assert build_measures(plain).bootstrap is None
    assert build_measures(asked).bootstrap.replicates == 7
    assert build_measures(plain).top_k == (1, 5)
