"""Probabilities through the real command line: results, figure, and a table on demand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ftc.functional import fit_temperature
from ftc.functional.statistics import keep_seen
from ftc.results import RunRecord
from tests.commands import run_module, run_train

SHORT = (
    *("source.max_epochs=1", "trainer.max_epochs=2", "data.gallery_every=null", "logger=csv"),
    *("calibration.use=[interpolated,alg,prior_matched]", "run_dir=run"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("probabilities")
    result = run_train(folder, *SHORT, "figures=[png]")
    assert result.returncode == 0, result.stderr
    assert "Probabilities, calibrated" not in result.stdout
    return folder


def test_every_stage_has_probabilities(home):
    record = RunRecord.read(home / "run")
    found, stages = record.probabilities, dict(record.rows())
    assert set(found) == set(stages) == {"source", "fine_tuned", *record.stages.calibrated}
    for name, stage in stages.items():
        # What the callback streamed, and what whole logits give.
        for key in ("nll_all", "brier_seen", "ece_absent", "confidence_absent"):
            assert stage.metrics[key] == pytest.approx(found[name].metrics[key], rel=1e-4), (name, key)
        kinds = {"held_out"} if name == "source" else {"held_out", "pool"}
        assert set(found[name].temperatures) == kinds
    assert found["fine_tuned"].temperatures["pool"].uses == ("unlabelled val", "seen val", "source model")
    # Moved weights are another model.
    assert found["interpolated"].metrics["nll_all"] != found["alg"].metrics["nll_all"]
    assert (home / "run" / "figures" / "reliability.png").is_file()


def test_a_temperature_is_fitted_on_the_models_own_held_out_logits(home):
    record = RunRecord.read(home / "run")
    tensors, partition = load_file(home / "run" / "predictions.safetensors"), record.partition.partition()
    for name, stage, gamma in (
        ("source", "source", 0.0),
        ("fine_tuned", "fine_tuned", 0.0),
        ("alg", "fine_tuned", record.stages.calibrated["alg"].gamma),
    ):
        of_v = keep_seen(tensors[f"{stage}/val/logits"], tensors[f"{stage}/val/target"], partition)
        found = record.probabilities[name].temperatures["held_out"].temperature
        assert found == pytest.approx(fit_temperature(*of_v, partition, gamma))


def test_a_finished_run_prints_them(home):
    shown = run_train(home, *SHORT, "calibration.probabilities=true")
    assert shown.returncode == 0, shown.stderr
    assert "Finished before" in shown.stdout
    assert "Probabilities, calibrated on labelled seen target images" in shown.stdout
    assert "Probabilities, calibrated with unlabelled target images" in shown.stdout
    found = RunRecord.read(home / "run").probabilities["interpolated"].temperatures["held_out"]
    assert re.search(rf"T on V +│ {found.temperature:.2f} │", shown.stdout)


def test_an_evaluated_checkpoint_has_the_same(home):
    use = ("calibration.use=[alg]", "calibration.probabilities=true", "run_dir=evaluated")
    result = run_module("evaluate", home, "checkpoint=run/fine_tuned.safetensors", *use)
    assert result.returncode == 0, result.stderr
    assert "Probabilities, calibrated" in result.stdout
    trained, evaluated = (RunRecord.read(home / run).probabilities for run in ("run", "evaluated"))
    for name in ("fine_tuned", "alg"):
        assert evaluated[name].metrics == pytest.approx(trained[name].metrics)
        # Without the source model there is nothing to compare the pool with.
        assert set(evaluated[name].temperatures) == {"held_out"}
