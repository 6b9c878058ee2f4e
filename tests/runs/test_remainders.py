"""Steps that batch norm cannot train on are left to the next epoch, or refused before anything is trained."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ftc.results import RunRecord
from tests.commands import run_train

DIGITS = (
    *("source.max_epochs=1", "source.iterations_per_epoch=2", "trainer.max_epochs=1", "logger=csv"),
    *("calibration.use=[alg]", "data.gallery_every=null", "run_dir=run"),
)


def photos(folder, count: int) -> None:
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)


def own(tmp_path, train: int, *options: str):
    photos(tmp_path / "photos" / "train", train)
    photos(tmp_path / "photos" / "test", 4)
    if not (tmp_path / "own.safetensors").is_file():
        from timm import create_model

        from ftc.models import save_weights

        save_weights(tmp_path / "own.safetensors", create_model("test_resnet", num_classes=3).state_dict())
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    return run_train(
        tmp_path,
        "data.columns=names.txt",
        *("experiment=folder", "data.root=photos", "model.name=test_resnet", "model.weights=own.safetensors"),
        *("data.overlap=allow", "data.holdout=0", "calibration.use=[alg]", "logger=csv", "run_dir=run"),
        *("trainer.max_epochs=2", "data.num_workers=0", *options),
    )


@pytest.mark.slow
def test_a_last_image_alone_waits_for_the_next_epoch(tmp_path):
    done = own(tmp_path, 65)
    assert done.returncode == 0, done.stderr
    assert RunRecord.read(tmp_path / "run").num_samples["seen"] == 4


@pytest.mark.parametrize(
    ("train", "options", "said"),
    [
        (
            8,
            ("data.batch_size=1",),
            "data.batch_size=1: gives a process 1 image a step (8 images, 1 processes)",
        ),
        (
            8,
            ("data.batch_size=1", "trainer.accumulate_grad_batches=4"),
            "data.batch_size=1: gives a process 1",
        ),
    ],
)
def test_steps_of_one_image_are_refused_before_anything_is_trained(tmp_path, train, options, said):
    done = own(tmp_path, train, *options)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ftc: error: {said}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_without_batch_statistics_one_image_is_a_step(tmp_path):
    done = own(tmp_path, 8, "data.batch_size=1", "method=linear_probe")
    assert done.returncode == 0, done.stderr


def test_a_source_model_is_not_trained_on_single_images_either(tmp_path):
    done = run_train(tmp_path, *DIGITS, "data.batch_size=1")
    assert done.returncode == 2
    assert "on which the batch norm of test_resnet cannot train" in done.stderr
    assert not (tmp_path / "run").exists()
