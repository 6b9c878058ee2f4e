"""One key says what the best γ is the best by; calibrators follow it unless they are told otherwise."""

from __future__ import annotations

import pytest

from ftc import InputError
from ftc.config.commands import CalibrateConfig, EvaluateConfig, TrainConfig
from tests.conftest import composed


@pytest.fixture
def arguments(tmp_path) -> dict[str, tuple[type, tuple[str, ...]]]:
    """What each command wants besides, by its name."""
    path = tmp_path / "file.npz"
    path.touch()
    return {
        "train": (TrainConfig, ()),
        "evaluate": (EvaluateConfig, (f"checkpoint={path}",)),
        "calibrate": (CalibrateConfig, (f"eval={path}", "partition.seen=[0]")),
    }


@pytest.mark.parametrize("command", ["train", "evaluate", "calibrate"])
def test_calibrators_follow_the_run_unless_told_otherwise(arguments, command):
    kind, besides = arguments[command]
    own = "calibration.calibrators.margin_mixture.criterion=balanced"
    found = composed(kind, command, *besides, "calibration.criterion=harmonic", own).calibration
    assert found.criterion == "harmonic"
    assert {name: node["criterion"] for name, node in found.calibrators.items() if "criterion" in node} == {
        "pcv": "source_floor",
        "margin_mixture": "balanced",
        "expected_accuracy": "harmonic",
    }


def test_what_is_no_criterion_and_bounds_by_another(arguments):
    kind, besides = arguments["calibrate"]
    with pytest.raises(
        InputError, match=r"^calibration\.criterion=median: input should be 'acc_all', 'harmonic' or"
    ):
        composed(kind, "calibrate", *besides, "calibration.criterion=median")
    follow = "calibration.calibrators.pcv.criterion=${calibration.criterion}"
    chosen = ("calibration.criterion=balanced", follow)
    found = composed(TrainConfig, "train", *chosen, "objective=oracle_balanced")
    assert found.calibration.calibrators["pcv"]["criterion"] == "balanced"
    with pytest.raises(
        InputError, match=r"^objective=oracle_acc_all: γ\* is the best by calibration\.criterion=balanced"
    ):
        composed(TrainConfig, "train", *chosen, "objective=oracle_acc_all")
