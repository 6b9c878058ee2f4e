"""Classes that the model lacks get columns of their own, through the real command line."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import save_for_hf

from ftc.config.commands import TrainConfig
from ftc.functional import imprinted_columns
from ftc.models import create_clip_classifier, load_metadata, save_weights
from ftc.reporting.tables import console
from ftc.results import RunRecord
from ftc.runs.folder import RunFolder
from ftc.runs.parts import build_parts, build_source_stage, choose_classes
from ftc.runs.stages import Stages
from tests.commands import as_between_gpus, run_fresh, run_module, run_train
from tests.conftest import composed
from tests.docs.stand_ins import draw_photos

SHORT = (
    "experiment=digits_new",
    "source.max_epochs=1",
    "data.iterations_per_epoch=4",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "logger=csv",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("new_classes")


@pytest.fixture(scope="module")
def run(home):
    result = run_train(home, *SHORT, "run_dir=one")
    assert result.returncode == 0, result.stderr
    assert "New columns begin from seen training images: 7, 8, 9" in result.stdout
    return home / "one"


def without_columns(state, columns):
    kept = [c for c in range(10) if c not in columns]
    return {name: value[kept] if name.startswith("fc.") else value for name, value in state.items()}


def test_new_columns_begin_from_seen_training_images_and_nothing_else_changes(run, home):
    state, seen = load_file(run / "source.safetensors"), (7, 8, 9)
    files = [load_file(path) for path in (home / "outputs" / "cache" / "source").glob("*.safetensors")]
    assert len(files) == 2
    (before,) = (file for file in files if not torch.equal(file["fc.weight"], state["fc.weight"]))
    for name, value in without_columns(state, seen).items():
        assert torch.equal(value, without_columns(before, seen)[name]), name
    predictions = load_file(run / "predictions.safetensors")
    features, target = (predictions[f"source/calibration/{field}"] for field in ("features", "target"))
    assert torch.bincount(target).tolist() == [0] * 7 + [300] * 3
    rows, biases = imprinted_columns(features, target, before["fc.weight"], before["fc.bias"], seen, range(7))
    torch.testing.assert_close(state["fc.weight"][7:], rows.float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(state["fc.bias"][7:], biases.float(), atol=1e-4, rtol=1e-4)


def test_what_the_new_columns_come_from_is_said(run):
    record = RunRecord.read(run)
    assert record.partition.seen == (7, 8, 9) and record.partition.absent == tuple(range(7))
    assert record.stages.source.uses == ("source domain", "seen train")
    assert set(record.stages.calibrated) == {"alg", "prior_matched", "margin_mixture", "oracle"}
    # No source model ever had the rows of new classes.
    assert record.analyses.head_updates.names == [str(digit) for digit in range(7)]
    assert record.analyses.head_updates.num_seen == 0 and record.analyses.head_updates.across is None
    assert len(record.analyses.class_shift.names) == 10


@pytest.mark.slow
def test_two_processes_begin_the_columns_alike(run, home, tmp_path):
    overrides = (*SHORT, "run_dir=two", "cache_dir=other", "trainer=ddp_cpu")
    two = run_fresh("train", home, *overrides, PYTHONPATH=as_between_gpus(tmp_path))
    assert two.returncode == 0, two.stderr
    first, second = (load_file(home / name / "source.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_cached_source_model_with_new_columns_changes_nothing(run, home):
    again = run_train(home, *SHORT, "run_dir=again")
    assert again.returncode == 0, again.stderr
    assert "Source model cached" in again.stdout
    first, second = (json.loads((home / name / "results.json").read_text()) for name in ("one", "again"))
    assert first["stages"] == second["stages"]


@pytest.mark.parametrize(
    ("use", "refused", "kept"),
    [
        ("[interpolated,alg,expected_accuracy,fixed]", "interpolated, expected_accuracy", "[alg, fixed]"),
        ("[pcv]", "pcv", "[alg]"),
        (
            "[anchored,misroute,mixed_anchor,symmetric]",
            "anchored, misroute, mixed_anchor, symmetric",
            "[alg]",
        ),
    ],
)
def test_calibrators_that_compare_with_the_source_model_are_refused(command, tmp_path, use, refused, kept):
    result = command(*SHORT, f"calibration.use={use}")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert (
        f"{refused} would compare with the source model, which was never given 7, 8, 9; set "
        f"calibration.use={kept}, or others of"
    ) in result.stderr
    assert not list(tmp_path.glob("outputs/digits_new*"))


def test_classes_that_neither_side_gives_are_said(command):
    result = command(*SHORT, "partition=random", "partition.seen=[7,8]", "calibration.use=[alg]")
    assert result.returncode == 0, result.stderr
    said = "The source model was never given 9 (1 of 8 absent classes): there is nothing that calibration"
    assert said in " ".join(result.stdout.split())


def test_columns_that_were_only_begun_stay_new(run, home):
    files = (f"checkpoint={run}/fine_tuned.safetensors", f"source.checkpoint={run}/source.safetensors")
    result = run_module("evaluate", home, *SHORT, *files, "run_dir=evaluated")
    assert result.returncode == 0, result.stderr
    first, second = (RunRecord.read(folder).stages.source for folder in (run, home / "evaluated"))
    assert second.uses == ("source.checkpoint", "seen train")
    assert second.metrics["ausuc"] == first.metrics["ausuc"]
    refused = run_module("evaluate", home, *SHORT, *files, "calibration.use=[symmetric]")
    assert refused.returncode == 2
    assert "symmetric would compare with the source model, which was never given 7, 8, 9" in refused.stderr


HUB = ("square", "star", "circle")
FOLDER = (
    "experiment=folder",
    "data.root=photos",
    "data.columns=model+",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "logger=csv",
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A hub's model of three classes, and photos of one of them and of two others."""
    home = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 10), ("test", 4)):
        draw_photos(home / "photos" / split, ("cross", "square", "triangle"), count)
    draw_photos(home / "photos" / "test", ("circle",), 4)
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=3)
    save_for_hf(model, str(home / "hub"), {"label_names": list(HUB)}, safe_serialization=True)
    return home


@pytest.fixture(scope="module")
def extended(photos):
    arguments = ("model.name=local-dir:hub", "calibration.use=[alg]", "run_dir=extended")
    result = run_train(photos, *FOLDER, *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return photos / "extended"


def test_a_hub_model_gets_columns_after_its_own(extended, photos):
    manifest = json.loads((extended / "partition.json").read_text())
    assert manifest["class_names"] == [*HUB, "cross", "triangle"]
    assert (manifest["seen"], manifest["absent"]) == (["square", "cross", "triangle"], ["star", "circle"])
    assert len(manifest["held_out"]) == 3
    results = json.loads((extended / "results.json").read_text())
    assert results["num_samples"] == {"seen": 12, "absent": 4, "others": 0}
    assert results["stages"]["source"]["uses"] == ["pre-training", "seen train"]
    state, hub = load_file(extended / "source.safetensors"), load_file(photos / "hub" / "model.safetensors")
    assert state.keys() == hub.keys()
    for name, value in hub.items():
        assert torch.equal(state[name][:3] if name.startswith("fc.") else state[name], value)
    predictions = load_file(extended / "predictions.safetensors")
    features, target = (predictions[f"source/calibration/{field}"] for field in ("features", "target"))
    assert torch.bincount(target).tolist() == [9, 0, 0, 9, 9]  # V is left out
    head = [torch.cat([hub[f"fc.{name}"], hub[f"fc.{name}"][:2]]) for name in ("weight", "bias")]
    rows, biases = imprinted_columns(features, target, *head, [3, 4], [0, 1, 2])
    torch.testing.assert_close(state["fc.weight"][3:], rows.float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(state["fc.bias"][3:], biases.float(), atol=1e-4, rtol=1e-4)


def test_the_default_of_folders_is_refused_with_the_mend(photos):
    result = run_train(photos, *FOLDER, "model.name=local-dir:hub")
    assert result.returncode == 2
    assert "which was never given cross, triangle; set calibration.use=[alg]" in result.stderr


def test_a_model_that_was_extended_is_extended_again(extended, photos):
    draw_photos(photos / "more" / "train", ("cross", "ring"), 10)
    draw_photos(photos / "more" / "test", ("cross", "ring"), 4)
    file = extended / "checkpoints" / "calibrated.safetensors"
    names = load_metadata(file)["class_names"]
    arguments = ("data.root=more", "model.name=test_resnet", f"source.checkpoint={file}", "run_dir=again")
    result = run_train(photos, *FOLDER, *arguments, "calibration.use=[alg]")
    assert result.returncode == 0, result.stderr
    manifest = json.loads((photos / "again" / "partition.json").read_text())
    assert manifest["class_names"] == [*names, "ring"]
    state, before = load_file(photos / "again" / "source.safetensors"), load_file(file)
    for name, value in before.items():
        assert torch.equal(state[name][:5] if name.startswith("fc.") else state[name], value)


def test_a_file_names_the_columns_of_weights_without_names(photos):
    (photos / "names.txt").write_text("\n".join(HUB))
    (photos / "two.txt").write_text("square\ncircle\n")
    weights = ("model.name=test_resnet", "model.weights=hub/model.safetensors", "calibration.use=[alg]")
    result = run_train(photos, *FOLDER, *weights, "data.columns=names.txt+", "run_dir=named")
    assert result.returncode == 0, result.stderr
    first, second = (load_file(photos / name / "source.safetensors") for name in ("named", "extended"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    nameless = run_train(photos, *FOLDER, *weights)
    assert "data.columns=model: the model's weights come without names; give a file" in nameless.stderr
    wrong = run_train(photos, *FOLDER, *weights, "data.columns=two.txt+")
    assert "model.safetensors has 3 columns, the partition has 2" in wrong.stderr
    assert nameless.returncode == wrong.returncode == 2


def test_evaluations_begin_the_source_models_columns_as_the_run_did(extended, photos):
    arguments = (
        "model.name=local-dir:hub",
        "source.checkpoint=hub/model.safetensors",
        f"checkpoint={extended}/fine_tuned.safetensors",
        "calibration.use=[alg]",
        "run_dir=evaluated",
    )
    result = run_module("evaluate", photos, *FOLDER, *arguments)
    assert result.returncode == 0, result.stderr
    run, evaluated = (RunRecord.read(folder).stages for folder in (extended, photos / "evaluated"))
    assert evaluated.source.uses == ("source.checkpoint", "seen train")
    for first, second in ((run.source, evaluated.source), (run.fine_tuned, evaluated.fine_tuned)):
        assert second.metrics["acc_all"] == first.metrics["acc_all"]
        assert second.metrics["ausuc"] == first.metrics["ausuc"]
    assert evaluated.calibrated["alg"].gamma == pytest.approx(run.calibrated["alg"].gamma, abs=1e-4)


def test_clips_text_encoder_makes_the_columns_of_new_names(photos, tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    monkeypatch.chdir(photos)
    vision = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 32, "head_width": 16}
    text = {"context_length": 16, "vocab_size": 49408, "layers": 1, "width": 32, "heads": 2}
    tiny = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "ftc-words.json").write_text(json.dumps(tiny))
    open_clip.add_model_config(tmp_path / "ftc-words.json")
    tuned = create_clip_classifier("ftc-words", None, HUB).timm_state_dict()
    save_weights(tmp_path / "tuned.safetensors", tuned, {"class_names": HUB})
    clip = ("model=clip", "model.name=ftc-words", "model.pretrained=null", f"cache_dir={tmp_path}")
    checkpoint = (f"source.checkpoint={tmp_path}/tuned.safetensors", "data.mode=RGB")
    config = composed(TrainConfig, "train", *FOLDER, *clip, *checkpoint)
    source = build_source_stage(config, console())
    stages = Stages(RunFolder(tmp_path / "run"), console())
    partition, _ = choose_classes(source, stages)
    parts = build_parts(source, partition, {})
    assert (parts.new, parts.begun_from) == ((3, 4), ())
    weights = source.with_new_columns(source.run(stages), parts.data, parts.new)
    state = load_file(weights)
    torch.manual_seed(config.source.seed)
    words = create_clip_classifier("ftc-words", None, (*HUB, "cross", "triangle")).timm_state_dict()
    for name, value in state.items():
        assert torch.equal(
            value, torch.cat([tuned[name], words[name][3:]]) if "head." in name else tuned[name]
        )
