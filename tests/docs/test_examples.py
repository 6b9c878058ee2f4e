"""What the pages show does what they say of it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import timm
from safetensors.torch import save_file
from timm.models import save_for_hf

from ftc.config.commands import TrainConfig
from tests.commands import run_module, run_train
from tests.conftest import composed
from tests.docs.blocks import BLOCKS, the_block
from tests.docs.shell import the_arguments
from tests.docs.stand_ins import CLASSES, draw_photos


def test_saved_logits_example(tmp_path):
    (tmp_path / "save_logits.py").write_text(the_block("python", "# save_logits.py").text)
    subprocess.run([sys.executable, "save_logits.py"], cwd=tmp_path, check=True)
    result = run_module("calibrate", tmp_path, *the_arguments("calibrate", "train=train.npz"))
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("outputs/logits-*/results.json")
    stages = json.loads(path.read_text())["stages"]
    assert stages["calibrated"]["alg"]["acc_absent"] > stages["fine_tuned"]["acc_absent"] + 0.3
    assert "│ + ALG " in result.stdout


def test_own_data_example(tmp_path):
    files = {block.file: block.text for block in BLOCKS if block.file and block.file.startswith("my_")}
    assert len(files) == 3
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    for name, block in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    for split, classes in (("train", CLASSES[:2]), ("val", CLASSES), ("test", CLASSES)):
        draw_photos(tmp_path / "photos" / split, classes, 8)
    # Stands in for the hub: the same loading path, from a local file.
    save_file(
        timm.create_model("test_resnet", num_classes=4).state_dict(), tmp_path / "pretrained.safetensors"
    )
    overlay = f"{{file: {tmp_path}/pretrained.safetensors, num_classes: 4, input_size: [3, 64, 64]}}"
    local = ("model.name=test_resnet", f"+model.kwargs.pretrained_cfg_overlay={overlay}", "logger=csv")
    result = run_train(
        tmp_path,
        *the_arguments("train", "--config-dir"),
        *local,
        "trainer.max_epochs=2",
        "data.num_workers=0",
    )
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("outputs/photos-*/results.json")
    results = json.loads(path.read_text())
    assert results["partition"]["seen"] == [0, 1]
    assert results["num_samples"] == {"seen": 16, "absent": 16, "others": 0}
    assert results["stages"]["source"]["uses"] == ["pre-training"]
    assert "ncm_acc_all" not in results["stages"]["source"]


def test_a_folder_and_a_hub_model_without_images_of_absent_classes(tmp_path):
    for split in ("train", "test"):
        draw_photos(tmp_path / "photos" / split, CLASSES[:2], 8)
    # As the hub keeps a model; names by column, in no order.
    model = timm.create_model("test_resnet", num_classes=4)
    names = {str(c): CLASSES[c] for c in (2, 0, 3, 1)}
    save_for_hf(model, str(tmp_path / "hub"), {"label_names": names}, safe_serialization=True)
    local = ("model.name=local-dir:hub", "logger=csv", "trainer.max_epochs=1", "run_dir=seen_only")
    result = run_train(tmp_path, *the_arguments("train", "experiment=folder", "data.columns=model"), *local)
    assert result.returncode == 0, result.stderr
    # Nothing that timm or the hub's client report on the way.
    assert result.stderr == ""
    assert "[HYDRA]" not in result.stdout
    manifest = json.loads((tmp_path / "seen_only" / "partition.json").read_text())
    assert manifest["class_names"] == list(CLASSES)
    assert (manifest["seen"], manifest["absent"]) == (["circle", "cross"], ["square", "star"])
    results = json.loads((tmp_path / "seen_only" / "results.json").read_text())
    assert "oracle" not in results["stages"]["calibrated"]
    assert results["stages"]["fine_tuned"]["acc_absent"] is None
    assert results["stages"]["fine_tuned"]["curve"]["acc_absent"][0] is None
    assert isinstance(results["stages"]["calibrated"]["alg"]["gamma"], float)


@pytest.mark.slow
def test_a_folder_with_unlabelled_images(tmp_path):
    draw_photos(tmp_path / "photos" / "train", CLASSES[:2], 12)
    draw_photos(tmp_path / "photos" / "test", CLASSES, 6)
    draw_photos(tmp_path / "photos" / "pool", CLASSES, 8)
    model = timm.create_model("test_resnet", num_classes=4)
    save_for_hf(model, str(tmp_path / "hub"), {"label_names": list(CLASSES)}, safe_serialization=True)
    local = ("model.name=local-dir:hub", "data.columns=model", "data.holdout=0.4", "trainer.max_epochs=1")
    folder = ("experiment=folder_pool", "data.root=photos", *local, "logger=csv", "run_dir=run")
    result = run_train(tmp_path, *folder)
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["deployed"] == "interpolated_prototypes"
    assert results["stages"]["calibrated"]["interpolated_prototypes"]["uses"][0] == "unlabelled pool"
    (tmp_path / "photos" / "pool").rename(tmp_path / "elsewhere")
    refused = run_train(tmp_path, *folder[:-1], "run_dir=other")
    assert refused.returncode == 2
    assert "photos/pool: no image in this folder" in refused.stderr


def test_the_papers_recipe_is_one_word_away():
    for experiment in ("folder", "folder_pool"):
        arguments = (
            f"experiment={experiment}",
            "data.root=photos",
            "model.name=resnet50",
            "recipe=paper",
        )
        assert composed(TrainConfig, "train", *arguments).calibration.use == ["alg"]
