"""Calibrators that move the head, in a short run of the command line: what is kept, deployed, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftc.benchmarks.digits import mnist
from ftc.calibrators import Committee, Interpolated, Prototypes, WeightAligning
from ftc.functional import partition_accuracy
from ftc.models import load_metadata, load_tensors, restore_classifier
from ftc.reporting.tables import exceptions
from ftc.results import RunRecord, StageRecord
from ftc.runs.moved import _kept
from ftc.runs.outputs import logits_of
from tests.commands import run_module, run_train

SHORT = ("source.max_epochs=2", "trainer.max_epochs=1", "logger=csv", "data.gallery_every=null")
USE = "calibration.use=[interpolated_prototypes,prototypes,weight_aligning,alg]"

READER = """
import torch
from ftc.benchmarks.digits import mnist
from ftc.data.readers import ArrayReader

ABSENT = [5, 6, 7, 8, 9]


def shuffled(split):
    reader = mnist(split)
    target = reader.targets.clone()
    rows = torch.isin(target, torch.tensor(ABSENT)).nonzero()[:, 0]
    target[rows] = target[rows.roll(37)]
    return ArrayReader(reader.images, target, reader.class_names)
"""
SEEN = "partition.seen=[0,1,2,3,4]"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("heads")
    result = run_train(home, *SHORT, SEEN, USE, "run_dir=run")
    assert result.returncode == 0, result.stderr
    return home


@pytest.fixture(scope="module")
def record(home) -> RunRecord:
    return RunRecord.read(home / "run")


def test_a_run_keeps_every_head_that_moved(home, record):
    heads = load_file(home / "run" / "heads.safetensors")
    moved = ("interpolated_prototypes", "prototypes", "weight_aligning")
    assert set(heads) == {f"{name}.{part}" for name in moved for part in ("weight", "bias")}
    own = load_tensors(home / "run" / "fine_tuned.safetensors")
    for name in moved:
        assert heads[f"{name}.weight"].shape == own["fc.weight"].shape
        assert not torch.equal(heads[f"{name}.weight"], own["fc.weight"])
    assert torch.equal(heads["weight_aligning.bias"], own["fc.bias"])


def test_rows_say_what_they_come_from(record):
    stages = record.stages.calibrated
    assert {name: stages[name].lane for name in stages} == {
        "interpolated_prototypes": "unlabelled",
        "prototypes": "unlabelled",
        "weight_aligning": "seen_only",
        "alg": "seen_only",
        "oracle": "oracle",
    }
    assert stages["prototypes"].uses == ("unlabelled val", "seen val", "source model", "seen train")
    assert {"strength", "shrinkage", "absent_share"} <= set(stages["prototypes"].details)
    assert "alpha" in stages["interpolated_prototypes"].details
    assert stages["weight_aligning"].uses == ("head",)
    assert stages["weight_aligning"].gamma == 0.0


def test_the_deployed_weights_are_a_plain_head_with_the_accuracy_of_the_table(home, record):
    path = home / "run" / "checkpoints" / "calibrated.safetensors"
    metadata = load_metadata(path)
    assert metadata["calibrator"] == record.deployed == "interpolated_prototypes"
    weights = load_tensors(path)
    assert weights.keys() == load_tensors(home / "run" / "fine_tuned.safetensors").keys()
    reader = mnist("test")
    logits = logits_of(restore_classifier(metadata, weights), reader)
    found = partition_accuracy(logits, reader.targets, record.partition.partition())
    metrics = record.stages.calibrated["interpolated_prototypes"].metrics
    for name in ("acc_all", "acc_seen", "acc_absent"):
        assert found[name] == metrics[name]


@pytest.mark.slow
@pytest.mark.parametrize("calibrator", ["interpolated_prototypes", "prototypes", "weight_aligning"])
def test_every_moved_head_deploys(home, calibrator):
    arguments = (f"to=deployed_{calibrator}", f"calibrator={calibrator}")
    result = run_module("deploy", home, "run=run", *arguments)
    assert result.returncode == 0, result.stderr
    assert f"Deployed: deployed_{calibrator}" in result.stdout
    card = (home / f"deployed_{calibrator}" / "README.md").read_text()
    assert ("- Head: moved towards" in card) == (calibrator != "weight_aligning")


def test_what_absent_images_are_called_changes_no_head(home):
    (home / "shuffling.py").write_text(READER)
    shuffled = "data.readers.val={_target_: shuffling.shuffled, split: val}"
    result = run_train(home, *SHORT, SEEN, USE, shuffled, "run_dir=shuffled")
    assert result.returncode == 0, result.stderr
    first, second = (load_file(home / run / "heads.safetensors") for run in ("run", "shuffled"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    targets = (
        load_file(home / r / "predictions.safetensors")["fine_tuned/val/target"] for r in ("run", "shuffled")
    )
    assert not torch.equal(*targets)


def test_a_head_that_is_gone_is_missed(home, tmp_path):
    for name in ("results.json", "config.yaml", "partition.json"):
        (tmp_path / name).write_bytes((home / "run" / name).read_bytes())
    for name in ("source", "fine_tuned"):
        (tmp_path / f"{name}.safetensors").symlink_to(home / "run" / f"{name}.safetensors")
    result = run_module("deploy", home, f"run={tmp_path}", "to=nothing")
    assert result.returncode == 2
    assert "heads.safetensors" in result.stderr
    assert not (home / "nothing").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["data.readers.val=null", "data.holdout=0.2"],
            "prototypes wants unlabelled target images of all classes",
        ),
        (["model.head=cosine"], "prototypes moves the rows of a linear head; set model.head=linear"),
        (
            ["calibration.calibrators.prototypes.shrinkage=-1"],
            "calibration.calibrators.prototypes=ftc.calibrators.Prototypes: shrinkage=-1",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, arguments, message):
    result = run_train(tmp_path, *SHORT, "calibration.use=[prototypes]", *arguments, "run_dir=run")
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_gap_that_there_is_not_is_told_of_before_fine_tuning(home):
    alone = ("partition.seen=[0]", "calibration.use=[interpolated]", "run_dir=alone")
    result = run_train(home, *SHORT, *alone)
    assert result.returncode == 2
    assert "interpolated: the average logit gap needs two seen classes" in result.stderr
    assert "Fine-tuning" not in result.stdout


def test_features_are_kept_where_a_head_is_fitted_to_them():
    fields = {"logits": torch.zeros(2, 3), "features": torch.zeros(2, 4)}
    predictions = {"test": fields, "calibration": fields, "gallery": fields}
    assert _kept(predictions, Interpolated(Prototypes())) == {"test": fields, "calibration": fields}
    for calibrator in (Prototypes(), Interpolated(Committee()), Interpolated(WeightAligning())):
        assert _kept(predictions, calibrator) == {"test": {"logits": fields["logits"]}}


def test_a_model_that_is_worse_than_its_source_is_told_of(record):
    source, oracle = record.stages.source, record.stages.calibrated["oracle"]

    def with_source(accuracy: float, lost: tuple[float, float] | None) -> RunRecord:
        other = StageRecord.model_validate({**source.model_dump(), "acc_all": accuracy})
        stages = record.stages.model_copy(update={"source": other})
        return record.model_copy(update={"stages": stages, "lost_on_held_out": lost})

    first, second = exceptions(with_source(1.0, (0.972, 0.51)))
    assert first.startswith("Fine-tuning made the model worse on held-out seen images (S/F 97.2 % → 51.0 %):")
    best = 100 * oracle.metrics["acc_all"]
    assert f"has Y/Y 100.0 %, more than the fine-tuned one with any γ, {best:.1f} % (by test" in second
    assert not list(exceptions(with_source(0.0, None)))
