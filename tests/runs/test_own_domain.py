"""The source model on its own domain, groups on one side, and near copies in V, through the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from timm import create_model

from ftc.assembly.components import build_calibrators, build_source_datamodule
from ftc.benchmarks.digits import uci_digits
from ftc.config.commands import TrainConfig
from ftc.data import hold_out
from ftc.models import load_weights, save_weights
from ftc.reporting.tables import console
from ftc.results import RunRecord
from ftc.runs.folder import RunFolder
from ftc.runs.folds import train_or_find_fold
from ftc.runs.parts import build_parts, build_source_stage, choose_classes
from ftc.runs.stages import Stages
from tests.commands import run_train
from tests.conftest import composed

SHORT = ("source.max_epochs=1", "trainer.max_epochs=1", "logger=csv", "calibration.use=[alg]")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("own-domain")


@pytest.fixture(scope="module")
def finished(home):
    result = run_train(home, *SHORT, "run_dir=run")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_it_is_measured_on_images_that_it_was_not_trained_on(home, finished):
    own = RunRecord.read(home / "run").own_domain
    reader = uci_digits()
    held_out = hold_out(reader.targets, range(10), 0.1)
    assert own.num_samples == int(held_out.sum()) == 185
    assert f"{1797 - 185:,} images of 10 classes" in finished
    assert finished.count(str(own)) == 2  # as it is measured, and beside the table
    source = build_source_stage(composed(TrainConfig, "train", f"cache_dir={home}/other"), console())
    load_weights(home / "run" / "source.safetensors", source.classifier)
    data = build_source_datamodule(source.config, source.images, source.classifier, held_out)
    hits = []
    source.classifier.eval()
    with torch.no_grad():
        for batch in data.held_out_dataloader():
            logits = source.classifier(batch["image"])
            hits.append(logits.argmax(1) == batch["target"])
    assert own.acc_all == pytest.approx(torch.cat(hits).double().mean().item(), abs=0.011)


def test_it_is_measured_once_for_all_runs(home, finished):
    again = run_train(home, *SHORT, "run_dir=again", "seed=1")
    assert RunRecord.read(home / "again").own_domain == RunRecord.read(home / "run").own_domain
    assert "Source model cached" in again.stdout
    assert len(list((home / "outputs" / "cache" / "own_domain").glob("*.safetensors"))) == 1


@pytest.mark.slow
def test_without_held_out_source_images_the_run_says_so(home, finished):
    result = run_train(home, *SHORT, "run_dir=whole", "source.holdout=0")
    assert RunRecord.read(home / "whole").own_domain is None
    assert "own domain is not measured: source.holdout=0 holds none of its images out" in result.stdout
    given = run_train(home, *SHORT, "run_dir=given", "source.checkpoint=run/source.safetensors")
    assert "not measured: source.checkpoint may have been trained on its images" in given.stdout


def film(folder, films: int, frames: int) -> None:
    """Films of two classes; the frames of a film differ by a little noise."""
    for number in range(films):
        name = "ab"[number % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(number)
        scene = generator.integers(0, 250, (8, 8)).repeat(8, 0).repeat(8, 1)
        for frame in range(frames):
            noisy = (scene + generator.integers(0, 6, scene.shape)).astype(np.uint8)
            Image.fromarray(noisy).save(folder / name / f"film{number:02}-{frame}.png")


def test_frames_of_a_film_stay_together_and_are_warned_of_where_they_do_not(tmp_path):
    film(tmp_path / "photos" / "train", 60, 4)
    film(tmp_path / "photos" / "test", 4, 1)
    torch.manual_seed(0)
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    weights = create_model("test_resnet", num_classes=3).state_dict()
    save_weights(tmp_path / "own.safetensors", weights)
    options = (
        *("experiment=folder", "data.root=photos", "data.columns=names.txt"),
        *("data.overlap=allow", "model.name=test_resnet", "model.weights=own.safetensors"),
        *("model.input_size=[3,64,64]", "data.holdout=0.2", "data.num_workers=0"),
        *("trainer.max_epochs=1", "logger=csv", "calibration.use=[alg]"),
    )
    single = run_train(tmp_path, *options, "run_dir=single")
    assert single.returncode == 0, single.stderr
    assert "% of the held-out images are nearly copies of images that are trained on" in single.stdout
    assert RunRecord.read(tmp_path / "single").near_copies > 0.5

    together = run_train(tmp_path, *options, "run_dir=together", "data.groups=film\\d+")
    assert together.returncode == 0, together.stderr
    assert "data.groups: 60 groups of 4 to 4 images in data.readers.train" in together.stdout
    assert "data.groups: 4 images of data.readers.test are of groups that are trained on" in together.stdout
    assert "nearly copies" not in together.stdout
    assert RunRecord.read(tmp_path / "together").near_copies < 0.125
    held_out = json.loads((tmp_path / "together" / "partition.json").read_text())["held_out"]
    films = {name.split("-")[0] for name in held_out}
    assert sorted(held_out) == sorted(f"{name}-{frame}.png" for name in films for frame in range(4))
    saved = load_file(tmp_path / "together" / "predictions.safetensors")
    assert len(saved["source/val/id"]) == len(held_out) == 48


def test_folds_train_on_no_image_of_a_group_that_v_has_images_of(tmp_path, monkeypatch):
    overrides = (
        *("data.readers.val=null", "data.holdout=0.2", "calibration.use=[pcv]"),
        *("data.groups='(\\d)\\d(\\d)$'", f"cache_dir={tmp_path}", "data.gallery_every=null"),
    )
    source = build_source_stage(composed(TrainConfig, "train", *overrides), console())
    calibrators = build_calibrators(source.config)
    partition, _ = choose_classes(source, Stages(RunFolder(tmp_path / "run"), console()))
    parts = build_parts(source, partition, calibrators)
    plan = calibrators["pcv"].folds
    weights = tmp_path / "any.safetensors"
    save_weights(weights, source.classifier.timm_state_dict())
    trained = []
    monkeypatch.setattr(
        "ftc.runs.folds.fit",
        lambda trainer, module, data: trained.append(
            torch.cat([batch["id"] for batch in data.calibration_dataloader()])
        ),
    )
    train_or_find_fold(parts, plan, 0, weights)
    groups = parts.images.groups["train"]
    held_out = parts.data.held_out.nonzero()[:, 0].tolist()
    (rows,) = trained
    assert len(rows) and not {groups[row] for row in rows} & {groups[row] for row in held_out}
