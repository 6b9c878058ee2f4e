from __future__ import annotations

import json
import os
import re
from functools import partial

import pytest
import timm
import torch
from lightning.pytorch import Trainer
from torch import nn

from ftc import ClassPartition, FineTuneModule, InputError
from ftc.finetune import build_optimizer
from ftc.models import create_classifier, fold_calibration, load_checkpoint, save_weights
from tests.models.classifiers import COUNTER, RELEASED, equal, make, prefixed, released, untouched


def lightning(classifier, path):
    """A checkpoint as Lightning's own trainer writes it."""
    module = FineTuneModule(classifier.train(), partial(build_optimizer, name="sgd", lr=0.1))
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    batch = {"image": torch.randn(2, 1, 32, 32), "target": torch.tensor([0, 1])}
    trainer.fit(module, torch.utils.data.DataLoader([batch], batch_size=None))
    trainer.save_checkpoint(path)


def test_safetensors_bring_their_metadata(origin, target, tmp_path):
    path = tmp_path / "calibrated.safetensors"
    folded = fold_calibration(origin.timm_state_dict(), "fc", ClassPartition(6, [0], [1, 5]), 0.75)
    metadata = {"calibrator": "alg", "gamma": "0.75", "class_names": json.dumps(list("abcdef"))}
    save_weights(path, folded, metadata)
    report = load_checkpoint(path, target)
    assert report.metadata == {"calibrator": "alg", "gamma": 0.75, "class_names": list("abcdef")}
    assert report.lines() == [
        f"{path}: safetensors, names of the timm model",
        "calibrated: γ 0.75 of alg is folded into its head",
    ]
    torch.testing.assert_close(target.head.bias - origin.head.bias, torch.tensor([0, 0.75, 0, 0, 0, 0.75]))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_lightning_checkpoint_of_fine_tuning(origin, target, tmp_path):
    lightning(origin, tmp_path / "last.ckpt")
    report = load_checkpoint(tmp_path / "last.ckpt", target)
    assert equal(target, origin)
    assert report.format == f"Lightning checkpoint under state_dict, prefix classifier., {RELEASED}"


DAMAGED_NAMES = {
    "no JSON": '["a", ',
    "no list": '{"a": 1}',
    "a number": "3",
    "null": "null",
    "no text in it": '["a", 1]',
    "deeply nested": "[" * 100_000 + "]" * 100_000,
    "nested": json.dumps([["a"]]),
}


@pytest.mark.parametrize("case", DAMAGED_NAMES)
def test_damaged_class_names_are_left_out_and_told(case, origin, target, tmp_path):
    path = tmp_path / "calibrated.safetensors"
    metadata = {"class_names": DAMAGED_NAMES[case], "gamma": "0.5", "calibrator": "[[1]]"}
    save_weights(path, origin.timm_state_dict(), metadata)
    report = load_checkpoint(path, target)
    assert "class_names" not in report.metadata
    assert report.lines()[1:] == [
        "class_names in its metadata is no list of names, left out",
        "calibrated: γ 0.50 of a calibrator is folded into its head",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e5m2])
def test_weights_that_are_not_finite_are_refused(value, dtype, origin, target, tmp_path):
    path, name = tmp_path / "diverged.pth", "layer1.0.conv1.weight"
    state = origin.timm_state_dict()
    state[name] = state[name].clone().index_fill(0, torch.tensor([1]), value).to(dtype)
    torch.save(state, path)
    message = f"{path}: weight {name} is not finite; choose a checkpoint from before the training diverged"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load_checkpoint(path, target)
    assert untouched(target)


def test_what_stands_beside_the_model_is_named_and_may_be_anything(origin, target, tmp_path):
    more = {"criterion.weight": torch.tensor([torch.nan]), "teacher.fc.bias": torch.zeros(9), "n": 3}
    torch.save({"state_dict": prefixed("net.", origin.timm_state_dict()) | more}, tmp_path / "source.pth")
    report = load_checkpoint(tmp_path / "source.pth", target)
    assert equal(target, origin)
    assert report.unexpected == tuple(more)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_weights_of_other_dtypes(origin, target, tmp_path):
    path, state = tmp_path / "source.pth", origin.timm_state_dict()
    torch.save({name: value.half() for name, value in state.items()}, path)
    load_checkpoint(path, target)
    assert torch.equal(target.head.weight, origin.head.weight.half().float())
    for value, message in {
        torch.zeros(6, 96, dtype=torch.int8): "fc.weight has dtype torch.int8",
        torch.zeros(6, 96).to_sparse(): r"1 of \d+ weights are missing: fc.weight",
        torch.zeros(6, 96, device="meta"): r"1 of \d+ weights are missing: fc.weight",
    }.items():
        torch.save({**state, "fc.weight": value}, path)
        with pytest.raises(InputError, match=message):
            load_checkpoint(path, target)


def test_torchvision_resnet_has_timms_names(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    original = torchvision.models.resnet18(num_classes=6).eval()
    torch.save(original.state_dict(), tmp_path / "resnet18.pth")
    classifier = create_classifier("resnet18.tv_in1k", 6).eval()
    load_checkpoint(tmp_path / "resnet18.pth", classifier)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(classifier(images), original(images))


def test_released_names_fit_resnet50(tmp_path):
    with torch.device("meta"):
        from torchvision.models import resnet50

        names = {k: v.shape for k, v in resnet50().state_dict().items() if not k.startswith("fc.")}
        backbone = timm.create_model("resnet50.tv_in1k", num_classes=0).state_dict()
    assert {name: value.shape for name, value in backbone.items()} == names


@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "test_efficientnet"])
def test_heads_of_any_name(name, tmp_path):
    origin, target = make(1, name=name), make(2, name=name)
    torch.save(released(origin), tmp_path / "source.pth")
    load_checkpoint(tmp_path / "source.pth", target)
    assert equal(target, origin)


def test_what_is_too_much_is_reported_and_left_out(origin, target, tmp_path):
    more = {"backbone.fc.weight": torch.zeros(9, 9), "bottleneck.0.weight": torch.zeros(2), "step": 7}
    torch.save(released(origin, **more), tmp_path / "source.pth")
    report = load_checkpoint(tmp_path / "source.pth", target)
    assert equal(target, origin)
    assert report.unexpected == tuple(more)
    assert report.lines()[1] == ("not in the model, left out: backbone.fc.weight, bottleneck.0.weight, step")


def test_counters_may_be_missing(origin, target, tmp_path):
    state = {k: v for k, v in origin.timm_state_dict().items() if not k.endswith(COUNTER)}
    torch.save(state, tmp_path / "old.pth")
    assert load_checkpoint(tmp_path / "old.pth", target).missing == ()
    assert equal(target, origin)


def test_missing_weights_are_refused_unless_allowed(origin, target, tmp_path):
    path = tmp_path / "backbone.pth"
    torch.save({**origin.backbone.state_dict(), "classifier.weight": torch.zeros(6, 3)}, path)
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, target)
    total = sum(not name.endswith(COUNTER) for name in origin.timm_state_dict())
    assert str(caught.value) == (
        f"{path}: 2 of {total} weights are missing: fc.weight, fc.bias; the file has classifier.weight; "
        "choose the model.name that it was saved from; source.strict=false keeps their initial values"
    )
    assert untouched(target)
    report = load_checkpoint(path, target, strict=False)
    assert report.missing == ("fc.weight", "fc.bias")
    assert report.lines()[1] == "not in the file, left as they were: fc.weight, fc.bias"
    assert torch.equal(target.head.weight, make(2).head.weight)
    assert torch.equal(target.backbone.conv1[0].weight, origin.backbone.conv1[0].weight)


def test_nothing_that_fits_is_refused_in_any_case(target, tmp_path):
    torch.save({"encoder.weight": torch.zeros(2), "encoder.bias": torch.zeros(2)}, tmp_path / "x.pth")
    for strict in (True, False):
        with pytest.raises(
            InputError, match=r"weights are missing.* and \d+ more; the file has encoder.weight"
        ):
            load_checkpoint(tmp_path / "x.pth", target, strict)


def test_a_narrower_head_takes_the_first_columns(target, tmp_path):
    path, narrow = tmp_path / "source.pth", make(1, num_classes=4)
    torch.save(released(narrow), path)
    load_checkpoint(path, target, columns=4)
    found, before = target.timm_state_dict(), make(2).timm_state_dict()
    for name, value in narrow.timm_state_dict().items():
        if name.startswith("fc."):
            assert torch.equal(found[name], torch.cat([value, before[name][4:]]))
        else:
            assert torch.equal(found[name], value)
    with pytest.raises(InputError, match="has 4 columns, the partition has 5"):
        load_checkpoint(path, target, columns=5)


def test_head_of_another_width_is_named(target, tmp_path):
    path = tmp_path / "source.pth"
    torch.save(released(make(1, num_classes=9)), path)
    message = (
        f"the head in {path} has 9 columns, the partition has 6: set data.num_classes=9, choose a checkpoint "
        "with 6, or name the file's columns in data.columns=names.txt+, which adds those that the data have "
        "besides"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        load_checkpoint(path, target, strict=False)
    assert untouched(target)


def test_other_shapes_are_named(target, tmp_path):
    path = tmp_path / "source.safetensors"
    save_weights(path, make(1, in_chans=3).timm_state_dict())
    with pytest.raises(
        InputError, match=r"conv1.0.weight has shape \(.*, 3, 3, 3\), the model wants \(.*, 1, 3, 3\)"
    ):
        load_checkpoint(path, target)
    assert untouched(target)


class Boom:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("wrap", [lambda boom, state: boom, lambda boom, state: {**state, "x": boom}])
def test_code_in_a_checkpoint_is_refused_and_never_runs(wrap, origin, target, tmp_path):
    path, marker = tmp_path / "source.pth", tmp_path / "ran"
    torch.save(wrap(Boom(marker), origin.timm_state_dict()), path)
    with pytest.raises(
        InputError, match=r"refused, since reading it would run (posix|nt|os).system;"
    ) as caught:
        load_checkpoint(path, target)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    assert untouched(target)
    # The file is a bomb indeed.
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_pickled_models_are_refused(origin, target, tmp_path):
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"would run torch.nn.modules.container.Sequential"):
        load_checkpoint(tmp_path / "model.pt", target)


def test_files_that_are_no_checkpoints(origin, target, tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save(origin.timm_state_dict(), whole)
    contents = {
        "truncated.pth": whole.read_bytes()[:-2000],
        "half.pth": whole.read_bytes()[:3000],
        "empty.pth": b"",
        "text.bin": b"<!DOCTYPE html>",
        "pickle.pt": b"\x80\x02broken",
        "truncated.safetensors": b"\x08\x00\x00\x00\x00\x00\x00\x00{",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "folder.safetensors").mkdir()
    for name in [*contents, "folder.pth", "folder.safetensors", "nowhere.pth", "nowhere.safetensors"]:
        with pytest.raises(InputError, match=r"no checkpoint|no safetensors file|no such file") as caught:
            load_checkpoint(tmp_path / name, target)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert untouched(target)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3, "net": {"a": 1}}, {}, torch.zeros(3)])
def test_files_without_weights(content, target, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match="no state dict in it"):
        load_checkpoint(tmp_path / "x.pth", target)


def test_a_head_of_another_width_keeps_its_values_where_that_is_allowed(tmp_path, target):
    other = make(3, num_classes=9)
    save_weights(tmp_path / "other.safetensors", other.timm_state_dict())
    head = target.head.weight.clone()
    with pytest.raises(InputError, match="has 9 columns, the partition has 6"):
        load_checkpoint(tmp_path / "other.safetensors", target)
    load_checkpoint(tmp_path / "other.safetensors", target, any_head=True)
    assert torch.equal(target.head.weight, head)
    for name, value in target.backbone.state_dict().items():
        assert torch.equal(value, other.backbone.state_dict()[name])
    same = make(4)
    save_weights(tmp_path / "same.safetensors", same.timm_state_dict())
    load_checkpoint(tmp_path / "same.safetensors", target, any_head=True)
    assert equal(target, same)


def test_a_foreign_backbone_is_refused_with_any_head(tmp_path, target):
    foreign = {f"trunk.{i}": value for i, value in enumerate(target.timm_state_dict().values())}
    save_weights(tmp_path / "foreign.safetensors", foreign)
    with pytest.raises(InputError, match="weights are missing"):
        load_checkpoint(tmp_path / "foreign.safetensors", target, any_head=True)
