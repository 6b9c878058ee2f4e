"""The damage report says what the numbers say, and nothing that they do not."""

from __future__ import annotations

import pytest

from ftc.reporting.damage import damage_report, exceptions
from ftc.results import PerClass
from tests.reporting.test_reporting import record, stage

BEFORE = {
    "acc_all": 0.6,
    "acc_seen": 0.7,
    "acc_absent": 0.5,
    "acc_absent_within": 0.8,
    "ncm_acc_absent": 0.9,
    "logit_gap_on_absent": -2.0,
}
AFTER = {
    "acc_all": 0.5,
    "acc_seen": 0.9,
    "acc_absent": 0.1,
    "acc_absent_within": 0.79,
    "ncm_acc_absent": 0.89,
    "logit_gap_on_absent": 1.5,
}


def damaged(before=None, after=None, calibrated=(0.65, 0.8, 0.5), best=0.7, **changes):
    """A run with 100 images of each group; a calibrator with these Y/Y, S/Y and U/Y."""
    mine = dict(zip(("acc_all", "acc_seen", "acc_absent"), calibrated, strict=True))
    stages = {
        "source": stage("", 0.0, "source domain", BEFORE | (before or {})),
        "fine_tuned": stage("", 0.0, "seen train", AFTER | (after or {})),
        "calibrated": {
            "mine": stage("mine", 1.0, "seen train", mine, lane="seen_only"),
            "oracle": stage("oracle", 2.0, "test labels", {"acc_all": best}, lane="oracle"),
        },
    }
    return record(**{"num_samples": {"seen": 100, "absent": 100, "others": 0}, **stages, **changes})


def said(lines, beginning) -> str:
    (line,) = (line for line in lines if line.startswith(beginning))
    return line


def test_what_was_damaged_and_what_was_not():
    lines = damage_report(damaged())
    assert said(lines, "Fine-tuning") == (
        "Fine-tuning raised the accuracy on seen classes (S/Y) from 70.0 to 90.0 % and lowered the accuracy "
        "on absent classes (U/Y) from 50.0 to 10.0 %."
    )
    assert "absent classes are as good as before: a nearest" in said(lines, "The features")
    assert (
        said(lines, "The order")
        == "The order among the absent classes was kept: U/U went from 80.0 to 79.0 %."
    )
    assert "grew by 3.5 logits (−2.0 → 1.5)" in said(lines, "The scale")
    assert "gains 20.0 points of Y/Y. Of that recover: mine 75 %." in said(lines, "The best γ")
    assert said(lines, "With") == (
        "With mine, absent classes gain 40.0 points (U/Y) and seen ones pay 10.0 points (S/Y)."
    )


def test_damage_to_order_and_features_is_told_of():
    lines = damage_report(damaged(after={"acc_absent_within": 0.5, "ncm_acc_absent": 0.6}))
    assert "were damaged" in said(lines, "The features")
    assert "was damaged: U/U went from 80.0 to 50.0 %. No γ mends that" in said(lines, "The order")
    better = damage_report(damaged(after={"acc_absent_within": 0.95, "ncm_acc_absent": 0.99}))
    assert "got better" in said(better, "The features") and "got better" in said(better, "The order")


def test_chance_is_by_the_number_of_images():
    many = damaged(num_samples={"seen": 10_000, "absent": 40_000, "others": 0})
    assert "was damaged" in said(damage_report(many), "The order")


def test_the_class_that_pays_most():
    names = ["a", "b"]
    found = PerClass(
        columns=[0, 1],
        names=names,
        num_samples=[9, 9],
        fine_tuned=[0.9, 0.8],
        calibrated={"mine": [0.8, 0.5]},
        confusions={"mine": []},
    )
    line = said(damage_report(damaged(per_class=found)), "With")
    assert line.endswith("; the class b pays most, 80.0 → 50.0 %.")


def test_exceptions_come_last_and_name_the_mend():
    lines = damage_report(damaged(best=0.55, calibrated=(0.52, 0.8, 0.3)))
    assert lines[-1].startswith(
        "The source model alone has Y/Y 60.0 %, more than the fine-tuned one with any γ"
    )
    assert lines[-1] in exceptions(damaged(best=0.55))
    assert "nothing to calibrate" in said(damage_report(damaged(best=0.501)), "No γ")


@pytest.mark.parametrize("absent_evaluated", [True, False])
def test_what_is_not_known_is_left_out(absent_evaluated):
    lines = damage_report(record(absent_evaluated))
    assert not any(word in line for line in lines for word in ("None", "nan", "features", "order"))
    assert absent_evaluated or lines[-1].startswith("No image of an absent class was evaluated")
