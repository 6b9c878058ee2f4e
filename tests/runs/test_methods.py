"""Methods through the real command line: folds, moved weights and the record go through the seam."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftc.results import RunRecord
from tests.commands import run_fresh, run_module, run_train

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
    assert record.analyses.cka == pytest.approx({"all": 1.0, "seen": 1.0, "absent": 1.0})
    assert record.analyses.class_shift.drift == pytest.approx([0.0] * 10, abs=1e-6)
    assert record.analyses.head_updates.across < 0


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


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    result = run_train(folder, *SHORT, "method=lora", "calibration.use=[interpolated,alg]", "run_dir=run")
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_a_lora_run_keeps_a_plain_model(lora):
    folder, printed = lora
    source, fine_tuned = weights(folder / "run")
    changed = {name for name in source if not torch.equal(source[name], fine_tuned[name])}
    matrices = {n for n, w in source.items() if n.endswith("weight") and w.ndim > 1}
    # A residual block's last batch norm begins at zero, so that little behind it may move in a few steps.
    assert {"fc.weight", "fc.bias"} < changed <= matrices | {"fc.bias"}
    record = RunRecord.read(folder / "run")
    assert record.method == "LoRA, rank 8"
    assert f"Trained: {record.trainable:,} parameters" in printed
    assert record.trainable < sum(w.numel() for w in source.values()) / 2


def test_a_checkpoint_that_is_not_merged_is_one_line(lora):
    folder, _ = lora
    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    result = run_module("evaluate", folder, *SHORT, checkpoint, "calibration.use=[alg]", "run_dir=other")
    assert result.returncode == 2
    assert "is from within a training by LoRA or the like, whose changes are not merged" in result.stderr
    assert not (folder / "other").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "lp_ft"])
def test_runs_deploy_to_every_format_with_the_same_labels(tmp_path, method):
    result = run_train(tmp_path, *SHORT, f"method={method}", "calibration.use=[alg]", "run_dir=run")
    assert result.returncode == 0, result.stderr
    formats = "formats=[timm,onnx,onnx_int8,torch_export]"
    done = run_module("deploy", tmp_path, "run=run", "to=deployed", formats)
    assert done.returncode == 0, done.stderr
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if "│" in line]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    for title in ("timm", "ONNX", "torch.export"):
        assert cells[title][:5] == cells["the run's model"][:5]
        assert cells[title][-1] == "100.00"


# Batch norm keeps its statistics, which would be those of a process's share of a batch.
@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [("lora",), ("lp_ft", "method.freeze_bn=true"), ("lolsgd", "method.freeze_bn=true", "method.rounds=2")],
    ids=lambda method: method[0],
)
def test_two_processes_train_as_one_does(tmp_path, method):
    name, *options = method
    use = "calibration.use=[alg]"
    for trainer in ("cpu", "ddp_cpu"):
        arguments = [a for a in SHORT if not a.startswith("trainer=")]
        done = run_fresh(
            "train",
            tmp_path,
            *arguments,
            f"method={name}",
            *options,
            use,
            f"trainer={trainer}",
            f"run_dir={trainer}",
            OMP_NUM_THREADS="1",
        )
        assert done.returncode == 0, done.stderr
    (_, alone), (source, both) = (weights(tmp_path / trainer) for trainer in ("cpu", "ddp_cpu"))
    for weight, value in alone.items():
        torch.testing.assert_close(both[weight], value, atol=2e-4, rtol=1e-3, msg=weight)
    assert any(not torch.equal(source[weight], both[weight]) for weight in source)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("oracle_all", "absent train (oracle)"),
        pytest.param("rehearsal", "source domain", marks=pytest.mark.slow),
    ],
)
def test_what_a_run_trained_on_is_in_every_row(tmp_path, method, more):
    arguments = (f"method={method}", "calibration.use=[alg]", "run_dir=run")
    result = run_train(tmp_path, *SHORT, *arguments)
    assert result.returncode == 0, result.stderr
    stages = RunRecord.read(tmp_path / "run").stages
    assert stages.fine_tuned.uses == ("seen train", more)
    assert stages.calibrated["alg"].uses == (more, "seen train")
    assert stages.source.uses == ("source domain",)


@pytest.mark.slow
def test_rehearsal_without_source_images_is_one_line(tmp_path):
    given = ("data.readers.source=null", "model.weights=source.safetensors")
    result = run_train(tmp_path, *SHORT, "calibration.use=[alg]", "source.max_epochs=1", "run_dir=first")
    assert result.returncode == 0, result.stderr
    (tmp_path / "first" / "source.safetensors").rename(tmp_path / "source.safetensors")
    use = "calibration.use=[alg]"
    result = run_train(tmp_path, *SHORT, *given, "method=rehearsal", use, "run_dir=run")
    assert result.returncode == 2
    assert result.stderr == (
        "ftc: error: method=ftc.finetune.Rehearsal: wants images of the source domain; name "
        "data.readers.source\n"
    )
    assert not (tmp_path / "run").exists()
