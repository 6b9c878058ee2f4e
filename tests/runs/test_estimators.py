"""Estimators inside short runs of the real command line: folds, interpolation, leaks, held-out data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftc.calibrators import (
    AverageLogitGap,
    Committee,
    Fold,
    FoldEvidence,
    Interpolated,
    OracleEvidence,
    PseudoCrossValidation,
)
from ftc.config.commands import TrainConfig
from ftc.results import RunRecord
from tests.commands import run_train
from tests.conftest import composed

SHORT = ("source.max_epochs=2", "trainer.max_epochs=1", "logger=csv", "partition.num_seen=4")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("estimators")


@pytest.fixture(scope="module")
def finished(home) -> tuple[str, RunRecord]:
    """Folds 0 and 1 trained by a sweep, the third by the run itself."""
    use = "calibration.use=[alg,pcv,interpolated]"
    spread = run_train(home, "-m", *SHORT, use, "fold=0,1")
    assert spread.returncode == 0, spread.stderr
    assert len(list((home / "outputs" / "cache" / "folds").glob("*.safetensors"))) == 2
    assert "Fold 1 of pcv: pseudo-seen classes" in spread.stdout
    result = run_train(
        home,
        *SHORT,
        use,
        "calibration.default=pcv",
        "calibration.bootstrap.replicates=50",
        "calibration.calibrators.alg.on=eval",
        "run_dir=run",
    )
    assert result.returncode == 0, result.stderr
    return result.stdout, RunRecord.read(home / "run")


def test_a_run_finds_the_folds_that_others_trained(finished, home):
    files = list((home / "outputs" / "cache" / "folds").glob("*.safetensors"))
    assert len(files) == 3
    # Nothing is left to train for the same run again.
    before = {file: file.stat().st_mtime_ns for file in files}
    again = run_train(home, *SHORT, "calibration.use=[alg,pcv]", "fold=2")
    assert again.returncode == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in files} == before


def test_gamma_of_the_folds_is_their_mean_recomputed_from_saved_logits(finished, home):
    _, record = finished
    p = record.partition.partition()
    calibrator = PseudoCrossValidation()
    plans = {tuple(seen) for seen in calibrator.folds.draw(p)}
    folds = []
    for file in (home / "outputs" / "cache" / "folds").glob("*.safetensors"):
        saved = load_file(file)
        assert set(saved["target"].tolist()) == set(p.seen)
        seen = json.loads(_metadata(file)["identity"])["pseudo_seen"]
        plans.remove(tuple(seen))
        folds.append(Fold.from_logits(saved["logits"], saved["source_logits"], saved["target"], p, seen))
    assert not plans
    expected = calibrator.estimate(FoldEvidence("folds", tuple(folds))).gamma
    stage = record.stages.calibrated["pcv"]
    assert stage.gamma == pytest.approx(expected)
    assert set(stage.details) == {"gamma_fold_0", "gamma_fold_1", "gamma_fold_2"}
    assert stage.lane == "seen_only"


def _metadata(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return opened.metadata()


def test_interpolated_weights_are_a_model_of_their_own(finished):
    _, record = finished
    stage = record.stages.calibrated["interpolated"]
    assert stage.details["alpha"] in (0.0, 0.5, 0.625, 0.75, 0.875, 1.0)
    assert (stage.metrics["ausuc"] == record.stages.fine_tuned.metrics["ausuc"]) == (
        stage.details["alpha"] == 1.0
    )


def test_the_released_leak_is_named_in_print_and_results(finished, home):
    output, record = finished
    stage = record.stages.calibrated["alg_oracle"]
    assert stage.lane == "oracle"
    assert stage.uses == ("test labels (label leak)",)
    assert "alg" not in record.stages.calibrated
    assert "+ ALG on test (leak)" in output
    saved = load_file(home / "run" / "predictions.safetensors")
    p = record.partition.partition()
    evidence = OracleEvidence.from_logits(saved["fine_tuned/test/logits"], saved["fine_tuned/test/target"], p)
    assert stage.gamma == pytest.approx(AverageLogitGap("eval").fit(evidence).gamma)


def test_intervals_are_in_results_and_print(finished):
    output, record = finished
    assert "Bootstrap intervals" in output
    stage = record.stages.calibrated["pcv"]
    low, high = stage.intervals["acc_all"]
    assert low <= stage.metrics["acc_all"] <= high
    low, high = stage.intervals["gamma"]
    assert low < high
    assert "gamma" not in record.stages.fine_tuned.intervals


def test_a_leak_is_never_deployed(home):
    result = run_train(home, *SHORT, "calibration.calibrators.alg.on=eval", "calibration.default=alg")
    assert result.returncode == 2
    assert "calibration.default=alg: looks at evaluated labels" in result.stderr


def test_fold_without_pseudo_cross_validation_says_so(home):
    result = run_train(home, *SHORT, "fold=0")
    assert result.returncode == 2
    assert "has 0 folds of pseudo cross-validation" in result.stderr


def test_held_out_training_images_serve_where_there_is_no_validation_split(home):
    held = ("data.readers.val=null", "data.holdout=0.2", "data.gallery_every=null", "run_dir=held")
    refused = run_train(home, *SHORT, *held)
    assert refused.returncode == 2
    assert "interpolated_prototypes wants unlabelled target images" in refused.stderr
    use = "calibration.use=[symmetric,interpolated,expected_accuracy]"
    result = run_train(
        home, *SHORT, *held, use, "calibration.default=interpolated", "data.readers.pool=${data.readers.test}"
    )
    assert result.returncode == 0, result.stderr
    saved = load_file(home / "held" / "predictions.safetensors")
    assert len(saved["fine_tuned/val/target"]) == 4 * 60
    assert len(saved["fine_tuned/calibration/target"]) == 4 * 240
    both = torch.cat([saved["fine_tuned/val/id"], saved["fine_tuned/calibration/id"]])
    assert len(both.unique()) == 4 * 300
    assert set(saved["fine_tuned/pool/target"].tolist()) == {-1}
    record = RunRecord.read(home / "held")
    assert record.stages.calibrated["expected_accuracy"].uses[0] == "unlabelled pool"
    assert set(record.stages.calibrated) == {"symmetric", "interpolated", "expected_accuracy", "oracle"}


@pytest.mark.slow
def test_two_calibrators_on_one_path_evaluate_its_models_once(home, monkeypatch):
    from ftc.models import other_weights
    from ftc.runs.train import train

    moved = []

    def counted(classifier, state):
        moved.append(1)
        return other_weights(classifier, state)

    monkeypatch.chdir(home)
    monkeypatch.setattr("ftc.runs.moved.other_weights", counted)
    use = ("calibration=study", "calibration.use=[interpolated,interpolated_unlabelled,alg]")
    train(composed(TrainConfig, "train", *SHORT, *use, "run_dir=twice", "logger=csv"))
    # Each candidate once, and each calibrator's own choice.
    assert len(moved) == len(Interpolated(Committee()).weights.candidates) + 2
