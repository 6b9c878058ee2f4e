"""The paper's benchmarks through the real command line, on replicas with the real layout and a tiny model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftc import InputError
from ftc.benchmarks.prepare import prepare
from ftc.config.commands import EvaluateConfig, TrainConfig
from ftc.models import create_classifier, create_clip_classifier
from ftc.runs.evaluate import evaluate
from ftc.runs.train import train
from tests.commands import run_module
from tests.conftest import composed
from tests.replicas import (
    OFFICE_HOME,
    imagenet_r_archive,
    office_home_archive,
    paper_clone,
    vtab_hub,
    wilds_folder,
)

OVERLAY = {"input_size": [3, 32, 32], "crop_pct": 1.0, "crop_mode": "squash"}
# The published experiment, made small: everything that is not named here is the paper's.
SMALL = (
    "model=timm",
    "model.name=test_resnet",
    "model.pretrained=false",
    "+model.kwargs.pretrained_cfg_overlay={input_size: [3, 32, 32], crop_pct: 1.0, crop_mode: squash}",
    "data.augmentation.0.size=32",
    "data.augmentation.2.hue=0",  # the replica tells classes apart by hue
    "data.num_classes=6",
    "data.num_workers=0",
    "data.cache=true",
    "cache_dir=cache",
    "source.max_epochs=8",
    "source.iterations_per_epoch=15",
    "source.optimizer.lr=0.1",
    "source.optimizer.backbone_lr_scale=1",
    "data.iterations_per_epoch=10",
    "optimizer.lr=0.1",
    "trainer.max_epochs=2",
    "logger=csv",
)
PAIR = ("experiment=office_home", "data.source=Rw", "data.target=Cl", *SMALL)
PAPER = ("partition=paper", "paper_repo=clone", "data.num_seen=3", "data.num_absent=2")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Office-Home, prepared as a user would from the original archive with the lists of the paper's clone."""
    home = tmp_path_factory.mktemp("office_home")
    office_home_archive(home / "archive")
    paper_clone(home / "clone")
    result = run_module(
        "prepare", home, "office_home", "--to", "data", "--from", "archive", "--lists", "clone"
    )
    assert result.returncode == 0, result.stderr
    return home


@pytest.fixture(scope="module")
def trained(home) -> dict:
    result = run_module("train", home, *PAIR, *PAPER, "run_dir=run")
    assert result.returncode == 0, result.stderr
    assert "Source model trained" in result.stdout
    return json.loads((home / "run" / "results.json").read_text())


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_one_pair_from_preparation_to_evaluation(home, trained):
    stages = trained["stages"]
    assert stages["source"]["acc_all"] > 0.5
    assert stages["fine_tuned"]["acc_absent"] < stages["source"]["acc_absent"]
    assert set(stages["calibrated"]) == {"alg", "oracle"}
    assert stages["calibrated"]["alg"]["uses"] == ["seen train"]
    assert stages["calibrated"]["alg"]["gamma"] > 0
    # Of six images.
    assert stages["calibrated"]["alg"]["acc_absent"] >= stages["fine_tuned"]["acc_absent"]
    assert stages["calibrated"]["oracle"]["uses"] == ["test labels"]
    assert trained["num_samples"] == {"seen": 9, "absent": 6, "others": 3}

    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    result = run_module("evaluate", home, *PAIR, *PAPER, checkpoint, "data.cache=false", "run_dir=evaluated")
    assert result.returncode == 0, result.stderr
    assert "│ checkpoint " in result.stdout
    again = results(home / "evaluated")
    # Uncached here, cached there: evaluation is the same.
    for stage in ("alg", "oracle"):
        assert again["stages"]["calibrated"][stage] == stages["calibrated"][stage]
    for name, value in stages["fine_tuned"].items():
        if name != "uses":
            assert again["stages"]["fine_tuned"][name] == value, name
    assert again["stages"]["source"] is None
    assert again["seed"] is None
    assert len(again["checkpoint"]) == 64


def test_seen_classes_are_the_published_ones(home, trained):
    order = next(
        line.split("[")[1].rstrip("])")
        for line in (home / "clone" / "py" / "HT_HARDCODED.py").read_text().splitlines()
        if line.startswith("OFFICEHOME_SOURCE_RW_CLASSES")
    )
    names = [OFFICE_HOME[int(i)] for i in order.split(",")]
    manifest = json.loads((home / "run" / "partition.json").read_text())
    assert manifest["class_names"] == list(OFFICE_HOME)  # the official lists' order
    assert set(manifest["seen"]) == set(names[:3])
    assert set(manifest["absent"]) == set(names[-2:])
    assert {split: entry["count"] for split, entry in manifest["samples"].items()} == {
        "source": 60,
        "train": 42,
        "test": 18,
    }


@pytest.fixture
def at_home(home, trained, monkeypatch):
    monkeypatch.chdir(home)
    return home


def evaluated(*overrides: str, folder: str) -> dict:
    evaluate(composed(EvaluateConfig, "evaluate", *PAIR, *overrides, f"run_dir={folder}"))
    return results(Path(folder))


def test_a_manifest_repeats_the_split_and_knows_its_samples(at_home, trained):
    split = ("partition=file", "partition.path=run/partition.json")
    checkpoint = "checkpoint=run/source.safetensors"
    record = evaluated(*split, checkpoint, folder="by_file")
    assert record["partition"] == trained["partition"]
    assert record["stages"]["fine_tuned"]["acc_all"] == trained["stages"]["source"]["acc_all"]
    ours, theirs = record["probabilities"]["fine_tuned"], trained["probabilities"]["source"]
    assert ours["metrics"] == pytest.approx(theirs["metrics"])
    other = ("data.target=Pr", checkpoint, *split)
    with pytest.raises(InputError, match=r"partition\.path=run/partition\.json: its train samples differ"):
        evaluated(*other, folder="other")
    record = evaluated(*other, "partition.samples=ignore", folder="other")
    assert record["partition"] == trained["partition"]


def test_the_papers_released_checkpoint_is_a_source_model(at_home, trained):
    torch.manual_seed(0)
    model = create_classifier("test_resnet", 6, kwargs={"pretrained_cfg_overlay": OVERLAY})
    released = {f"backbone.{k}": v for k, v in model.backbone.state_dict().items()}
    released |= {f"head.{k}": v for k, v in model.head.state_dict().items()}
    torch.save(released, "released.pth")
    record = evaluated(*PAPER, "checkpoint=released.pth", folder="released")
    config = composed(
        TrainConfig,
        "train",
        *PAIR,
        *PAPER,
        "source.checkpoint=released.pth",
        "trainer.max_epochs=1",
        "run_dir=from_released",
    )
    train(config)
    stages = results(Path("from_released"))["stages"]
    assert stages["source"]["acc_all"] == record["stages"]["fine_tuned"]["acc_all"]
    assert stages["source"]["uses"] == ["pre-training"]

    torch.save(released | {"head.weight": torch.zeros(65, 7)}, "wide.pth")
    with pytest.raises(InputError, match="65") as caught:
        evaluated(*PAPER, "checkpoint=wide.pth", folder="wide")
    assert "\n" not in str(caught.value)
    assert not Path("wide").exists()


@pytest.mark.parametrize("kind", ["near", "far"])
def test_splits_by_the_source_models_class_means(at_home, kind, trained):
    record = evaluated(
        f"partition={kind}",
        "data.num_seen=3",
        "data.num_absent=3",
        "checkpoint=run/source.safetensors",
        folder=kind,
    )
    assert len(record["partition"]["seen"]) == len(record["partition"]["absent"]) == 3


def test_broken_images_are_left_out_and_counted_on_request(at_home, capsys):
    lines = Path("data/office_home/image_list/Clipart_training.txt").read_text().splitlines()
    broken = Path("data/office_home") / lines[0].rpartition(" ")[0]
    content = broken.read_bytes()
    try:
        broken.unlink()
        broken.write_bytes(content[:-40])
        arguments = (*PAPER, "checkpoint=run/source.safetensors")
        with pytest.raises(InputError, match=r"Clipart/.*truncated.*data\.on_error=skip"):
            evaluated(*arguments, folder="broken")
        assert not Path("broken").exists()
        evaluated(*arguments, "data.on_error=skip", folder="broken")
        assert "data.readers.train: 1 samples left out, 41 are used" in capsys.readouterr().out
    finally:
        broken.write_bytes(content)


def test_calibrators_that_want_held_out_images_say_so(at_home):
    config = composed(TrainConfig, "train", *PAIR, *PAPER, "calibration.use=[pcv]", "run_dir=pcv")
    with pytest.raises(InputError, match=r"pcv wants labelled seen images held out .* set data\.holdout"):
        train(config)


@pytest.mark.slow
def test_averaged_weights_are_what_is_evaluated_and_kept(at_home):
    options = (
        "trainer=cpu",
        "ema=0.8",
        "channels_last=true",
        "trainer.accumulate_grad_batches=2",
        "trainer.gradient_clip_val=1.0",
        "source.max_epochs=1",
    )
    train(composed(TrainConfig, "train", *PAIR, *PAPER, *options, "run_dir=averaged"))
    stages = results(Path("averaged"))["stages"]
    record = evaluated(*PAPER, "checkpoint=averaged/checkpoints/last.ckpt", folder="averaged_again")
    assert record["stages"]["fine_tuned"]["acc_all"] == stages["fine_tuned"]["acc_all"]
    alg = "alg"
    assert record["stages"]["calibrated"][alg]["gamma"] == pytest.approx(stages["calibrated"][alg]["gamma"])
    plain = [option for option in options if not option.startswith("ema=")]
    train(composed(TrainConfig, "train", *PAIR, *PAPER, *plain, "run_dir=plain"))
    kept, other = (
        torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("averaged", "plain")
    )
    head = kept["state_dict"]["classifier.head.weight"]
    assert not torch.equal(head, other["state_dict"]["classifier.head.weight"])
    deployed = load_file("averaged/checkpoints/calibrated.safetensors")
    assert any(torch.equal(head, value) for value in deployed.values())
    assert kept["global_step"] == 10  # 2 epochs of 10 iterations, every other of which changes the weights


def test_imagenet_r_has_other_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    imagenet_r_archive(tmp_path / "archive")
    prepared = run_module("prepare", tmp_path, "imagenet_r", "--to", "data", "--from", "archive/imagenet-r")
    assert prepared.returncode == 0, prepared.stderr
    model = create_classifier("test_resnet", 1000, kwargs={"pretrained_cfg_overlay": OVERLAY})
    torch.save(model.timm_state_dict(), "weights.pth")
    small = [o for o in SMALL if not o.startswith(("data.num_classes", "source."))]
    config = composed(
        EvaluateConfig,
        "evaluate",
        "experiment=imagenet_r",
        *small,
        "data.num_seen=3",
        "data.num_absent=2",
        "checkpoint=weights.pth",
        "run_dir=run",
    )
    evaluate(config)
    partition = results(tmp_path / "run")["partition"]
    # Drawn among the six classes that have images, of 1,000 columns.
    assert {*partition["seen"], *partition["absent"]} < {1, 2, 4, 6, 8, 9}
    assert len(partition["others"]) == 995


def test_iwildcam_takes_its_seen_classes_from_the_earlier_period(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wilds_folder(tmp_path / "original")
    prepared = run_module("prepare", tmp_path, "iwildcam", "--to", "data", "--from", "original/iwildcam_v2.0")
    assert prepared.returncode == 0, prepared.stderr
    small = [o for o in SMALL if not o.startswith("data.num_classes")]
    config = composed(
        TrainConfig,
        "train",
        "experiment=iwildcam",
        *small,
        "source.max_epochs=1",
        "data.earlier=0.1",
        "run_dir=run",
    )
    train(config)
    record = results(tmp_path / "run")
    assert record["partition"]["seen"]
    assert record["partition"]["absent"]
    assert record["stages"]["source"]["uses"] == ["source domain"]


def test_vtab_with_clips_zero_shot_head(tmp_path, monkeypatch):
    import open_clip

    tiny = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    (tmp_path / "tiny-clip.json").write_text(json.dumps(tiny))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    monkeypatch.chdir(tmp_path)
    vtab_hub(tmp_path / "hub", "eurosat")
    prepare("vtab", tmp_path / "data", original=tmp_path / "hub", task="eurosat")
    torch.manual_seed(0)
    words = ("annual crop land", "forest")
    templates = ["a centered satellite photo of {}."]
    torch.save(create_clip_classifier("tiny-clip", None, words * 3, templates).timm_state_dict(), "clip.pth")
    small = [
        o for o in SMALL if o.startswith(("data.augmentation", "data.num_", "data.iter", "trainer", "log"))
    ]
    config = composed(
        TrainConfig,
        "train",
        "experiment=vtab",
        "data.task=eurosat",
        "model.name=tiny-clip",
        "model.pretrained=null",
        "source.checkpoint=clip.pth",
        *small,
        "data.num_seen=3",
        "trainer.max_epochs=1",
        "run_dir=run",
    )
    assert config.model.words["Forest"] == "forest"
    train(config)
    record = results(tmp_path / "run")
    assert record["num_samples"] == {"seen": 12, "absent": 12, "others": 0}
    assert record["stages"]["source"]["uses"] == ["pre-training"]


@pytest.mark.slow
def test_the_papers_table_in_one_sweep(home):
    small = [o for o in SMALL if not o.startswith(("trainer.", "data.iter", "source.max"))]
    short = ("source.max_epochs=1", "data.iterations_per_epoch=1", "trainer.max_epochs=1")
    result = run_module("train", home, "sweep=office_home", *small, *short, *PAPER, "hydra.sweep.dir=table")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Source model trained") == 2
    with (home / "table" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = ["[Ar,Cl]", "[Ar,Pr]", "[Ar,Rw]", "[Rw,Ar]", "[Rw,Cl]", "[Rw,Pr]"]
    assert [row["data.pair"] for row in rows] == [pair for pair in pairs for _ in range(3)]
    assert [row["seed"] for row in rows] == ["0", "1", "2"] * 6
    assert {row["status"] for row in rows} == {"finished"}
