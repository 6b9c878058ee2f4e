"""Weights of one's own in place of timm's: loaded whole, or refused."""

from __future__ import annotations

import pytest
import timm
import torch
from PIL import Image

from ftc import InputError
from ftc.config.commands import TrainConfig
from ftc.models import save_weights
from ftc.reporting.tables import console
from ftc.runs.parts import build_source_stage
from tests.conftest import composed

FOLDER = ("experiment=folder", "data.root=photos", "model.name=test_resnet", "data.columns=null")


def config(*overrides):
    return composed(TrainConfig, "train", *FOLDER, *overrides)


def built(*overrides):
    return build_source_stage(config(*overrides), console()).classifier


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Weights of a model of four classes, as ``own.safetensors``."""
    monkeypatch.chdir(tmp_path)
    for split, classes in (("train", "ab"), ("test", "abcd")):
        for i, name in enumerate(classes):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            colour = (40 * i, 100, len(classes))
            Image.new("RGB", (9, 9), colour).save(tmp_path / "photos" / split / name / "0.png")
    torch.manual_seed(5)
    model = timm.create_model("test_resnet", num_classes=4)
    save_weights(tmp_path / "own.safetensors", model.state_dict())
    return model.state_dict()


@pytest.mark.parametrize(
    "how", ["model.weights=own.safetensors", "+model.kwargs.pretrained_cfg_overlay.file=own.safetensors"]
)
def test_own_weights_are_loaded_whole(saved, how):
    classifier = built(how, "model.input_size=[3,64,48]")
    found = classifier.timm_state_dict()
    assert all(torch.equal(found[name], value) for name, value in saved.items())
    assert classifier.data_config["input_size"] == (3, 64, 48)


@pytest.mark.parametrize(
    "how",
    ["model.weights=foreign.safetensors", "+model.kwargs.pretrained_cfg_overlay.file=foreign.safetensors"],
)
def test_weights_that_do_not_fit_are_refused(saved, how):
    foreign = {f"trunk.{i}": value for i, value in enumerate(saved.values())}
    save_weights("foreign.safetensors", foreign)
    with pytest.raises(InputError, match=r"foreign\.safetensors: \d+ of \d+ weights are missing"):
        built(how)


def test_what_was_loaded_is_said_and_its_classes_are_checked(saved, capsys):
    built("model.weights=own.safetensors")
    assert "own.safetensors: safetensors, names of the timm model" in capsys.readouterr().out
    save_weights("named.safetensors", saved, {"class_names": ["d", "c", "b", "a"]})
    with pytest.raises(InputError, match=r"its head's columns are d, c, b, a, .*give the same data\.columns"):
        built("model.weights=named.safetensors")


def test_a_head_of_another_width_is_refused_where_nothing_trains_it(saved, tmp_path):
    (tmp_path / "photos" / "test" / "e").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "test" / "e" / "0.png")
    with pytest.raises(InputError, match="has 4 columns, the partition has 5"):
        built("model.weights=own.safetensors")
    # With source images the head is trained anyway.
    digits = composed(TrainConfig, "train", "model.kwargs.in_chans=3", "model.weights=own.safetensors")
    classifier = build_source_stage(digits, console()).classifier
    assert torch.equal(classifier.timm_state_dict()["conv1.0.weight"], saved["conv1.0.weight"])
    assert classifier.head.out_features == 10


def test_runs_are_named_by_the_content_of_weights(saved, tmp_path):
    (tmp_path / "copy.safetensors").write_bytes((tmp_path / "own.safetensors").read_bytes())
    save_weights(tmp_path / "other.safetensors", {name: value + 1 for name, value in saved.items()})
    own, copy, other = (
        config(f"model.weights={name}.safetensors").run_name() for name in ("own", "copy", "other")
    )
    assert own == copy != other
    with pytest.raises(InputError, match=r"^model\.weights=gone\.pth: no such file"):
        config("model.weights=gone.pth")
