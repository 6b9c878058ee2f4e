"""Methods through the real command line: folds, moved weights and the record go through the seam."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftc.results import RunRecord
from tests.commands import run_train

SHORT = (
    *("source.max_epochs=2", "trainer.max_epochs=2", "data.iterations_per_epoch=6", "logger=csv"),
    *("trainer=cpu", "data.gallery_every=null"),
)


def weights(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    source, fine_tuned = (load_file(folder / f"{name}.safetensors") for name in ("source", "fine_tuned"))
    assert source.keys() == fine_tuned.keys()
    return source, fine_tuned


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    use = "calibration.use=[interpolated,pcv,alg]"
    result = run_train(folder, *SHORT, "method=linear_probe", use, "run_dir=run")
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_linear_probe_moves_the_head_alone(probe):
    folder, printed = probe
    source, fine_tuned = weights(folder / "run")
    changed = {name for name in source if not torch.equal(source[name], fine_tuned[name])}
    assert changed == {"fc.weight", "fc.bias"}
    record = RunRecord.read(folder / "run")
    assert record.method == "linear probe"
    assert "digits p0, linear probe, calibrated on labelled seen" in printed
    assert record.feature_drift == pytest.approx(
        {
            f"feature_{kind}_on_{group}": value
            for kind, value in (("cosine", 1.0), ("shift", 0.0))
            for group in ("seen", "absent")
        },
        abs=1e-6,
    )


@pytest.mark.slow
def test_folds_are_fine_tuned_by_the_method_of_the_run(probe):
    folder, _ = probe
    assert len(RunRecord.read(folder / "run").stages.calibrated["pcv"].details) == 3
    full = run_train(folder, *SHORT, "calibration.use=[pcv]", "run_dir=full")
    assert full.returncode == 0, full.stderr
    identities = [
        json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])["__metadata__"]
        for path in (folder / "outputs" / "cache" / "folds").glob("*.safetensors")
    ]
    methods = [json.loads(content["identity"])["method"]["_target_"] for content in identities]
    assert sorted(methods) == 3 * ["ftc.finetune.Full"] + 3 * ["ftc.finetune.LinearProbe"]


def test_seen_softmax_leaves_the_rows_of_absent_classes_alone(tmp_path):
    arguments = ("method=seen_softmax", "optimizer.weight_decay=0", "calibration.use=[alg]", "run_dir=run")
    result = run_train(tmp_path, *SHORT, *arguments)
    assert result.returncode == 0, result.stderr
    source, fine_tuned = weights(tmp_path / "run")
    partition = RunRecord.read(tmp_path / "run").partition
    moved = (source["fc.weight"] != fine_tuned["fc.weight"]).any(1)
    assert moved.nonzero()[:, 0].tolist() == list(partition.seen)
    others = [name for name in source if not name.startswith("fc.")]
    assert all(not torch.equal(source[name], fine_tuned[name]) for name in others)


def test_a_target_that_is_no_method_gets_one_line(tmp_path):
    result = run_train(tmp_path, *SHORT, "method._target_=ftc.calibrators.MixedAnchor", "run_dir=run")
    assert result.returncode == 2
    assert result.stderr.startswith(
        "ftc: error: method=ftc.calibrators.MixedAnchor: is no method; choose full"
    )
    assert not (tmp_path / "run").exists()
