"""A method that is added by following the docs is trained, compared and counted."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from ftc.results import RunRecord
from tests.commands import run_module
from tests.docs.blocks import the_block
from tests.docs.shell import commands_of, of_ftc

SHORT = (
    *("source.max_epochs=2", "trainer.max_epochs=2", "data.iterations_per_epoch=6", "logger=csv"),
    *("trainer=cpu", "data.gallery_every=null", "calibration.use=[alg]"),
)


@pytest.mark.slow
def test_the_method_of_the_page_is_one_of_ours(tmp_path):
    code = the_block("python", "# keep_features.py").text
    assert len(code.splitlines()) < 60
    (tmp_path / "keep_features.py").write_text(code)
    for command in commands_of(the_block("bash", "keep_features.KeepFeatures")):
        name, arguments = of_ftc(command.words)
        done = run_module(name, tmp_path, *arguments, *(SHORT if name == "train" else ()))
        assert done.returncode == 0, done.stderr
    rows = {line.split(" | ")[0] for line in done.stdout.splitlines() if line.startswith("| ")}
    assert {"| kept features, weight 0.1", "| kept features, weight 1", "| full fine-tuning"} < rows

    drift = {}
    for name in ("kept", "kept_more", "full"):
        record = RunRecord.read(tmp_path / "runs" / name)
        drift[name] = record.feature_drift["feature_shift_on_seen"]
        weights = load_file(tmp_path / "runs" / name / "fine_tuned.safetensors")
        assert all(torch.isfinite(value).all() for value in weights.values())
    assert drift["kept_more"] < drift["kept"] < drift["full"]
