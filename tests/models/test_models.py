from __future__ import annotations

import json
import pickle

import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config

from ftc import ClassPartition, InputError
from ftc.functional.weights import interpolate_weights
from ftc.models import (
    cached_tensors,
    create_classifier,
    fold_calibration,
    label_names,
    load_tensors,
    load_weights,
    pretrained_width,
    save_weights,
)

KWARGS = {"in_chans": 1, "pretrained_cfg_overlay": {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5]}}


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return create_classifier("test_resnet", 6, kwargs=KWARGS).eval()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_split_model_equals_the_timm_model(name):
    torch.manual_seed(0)
    whole = timm.create_model(name, num_classes=6).eval()
    torch.manual_seed(0)
    split = create_classifier(name, 6).eval()
    images = torch.randn(2, 3, 160, 160)
    assert set(split.timm_state_dict()) == set(whole.state_dict())
    torch.testing.assert_close(split(images), whole(images))
    features, logits = split.features_and_logits(images)
    assert features.shape == (2, split.num_features)
    torch.testing.assert_close(logits, split.head(features))


def test_head_runs_in_float32_under_autocast(classifier):
    images = torch.randn(4, 1, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        features, logits = classifier.features_and_logits(images)
    assert features.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(logits, classifier.head(features), rtol=0, atol=0)


def test_weights_survive_the_file(classifier, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, classifier.timm_state_dict(), {"note": "x"})
    other = create_classifier("test_resnet", 6, kwargs=KWARGS).eval()
    load_weights(path, other)
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(classifier(images), other(images))
    with safe_open(path, "pt") as file:
        assert file.metadata()["note"] == "x"


def test_folded_gamma_deploys_as_plain_timm(classifier, tmp_path):
    partition = ClassPartition(6, [0, 2, 4], [1, 5])
    path = tmp_path / "calibrated.safetensors"
    state = classifier.timm_state_dict()
    before = {name: value.clone() for name, value in state.items()}
    save_weights(path, fold_calibration(state, "fc", partition, 0.75))
    assert all(torch.equal(value, before[name]) for name, value in state.items())
    plain = timm.create_model("test_resnet", num_classes=6, **KWARGS).eval()
    plain.load_state_dict(load_file(path))
    images = torch.randn(8, 1, 32, 32)
    expected = classifier(images)
    expected[:, [1, 5]] += 0.75
    torch.testing.assert_close(plain(images), expected)


def test_gamma_needs_a_bias_to_be_folded_into(classifier):
    state = {name: value for name, value in classifier.timm_state_dict().items() if name != "fc.bias"}
    with pytest.raises(InputError, match="the head has no bias"):
        fold_calibration(state, "fc", ClassPartition(6, [0], [1]), 1.0)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_interpolated_weights_lie_between(classifier, alpha):
    source = {name: value.clone() for name, value in classifier.timm_state_dict().items()}
    classifier.train()(torch.randn(4, 1, 32, 32)).sum().backward()
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter -= 0.1 * parameter.grad
    fine_tuned = classifier.timm_state_dict()
    found = interpolate_weights(source, fine_tuned, alpha)
    assert found.keys() == fine_tuned.keys()
    for name, value in fine_tuned.items():
        expected = source[name] + alpha * (value - source[name]) if value.is_floating_point() else value
        torch.testing.assert_close(found[name], expected)
    means = [name for name in found if name.endswith("running_mean")]
    assert means
    assert all(torch.equal(found[n], fine_tuned[n]) == (alpha == 1) for n in means)
    classifier.load_timm_state_dict(found)


def test_tensors_are_computed_once_for_what_shaped_them(tmp_path):
    calls = []

    def compute(_):
        calls.append(None)
        return {"x": torch.full((2,), len(calls))}

    path, fresh = cached_tensors({"a": 1, "b": 2}, tmp_path / "cache", compute)
    again = cached_tensors({"b": 2, "a": 1}, tmp_path / "cache", compute)
    other, _ = cached_tensors({"a": 1, "b": 3}, tmp_path / "cache", compute)
    assert (fresh, again, len(calls)) == (True, (path, False), 2)
    assert load_tensors(path)["x"].tolist() == [1, 1]
    assert load_tensors(other)["x"].tolist() == [2, 2]


def test_failed_computation_leaves_no_file(tmp_path):
    def fail(_):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        cached_tensors({"a": 1}, tmp_path, fail)
    assert not list(tmp_path.glob("*.safetensors"))
    assert cached_tensors({"a": 1}, tmp_path, lambda _: {"x": torch.ones(1)})[1]


def test_preprocessing_is_timms(classifier):
    image = Image.effect_noise((20, 28), 80)
    plain = timm.create_model("test_resnet", num_classes=6, **KWARGS)
    reference = create_transform(**resolve_data_config(model=plain))
    assert torch.equal(create_transform(**classifier.data_config)(image), reference(image))


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("test_resnett", {}, "model.name=test_resnett: Unknown model"),
        ("test_resnet", {"in_channels": 1}, "in_channels"),
    ],
)
def test_unknown_models_and_arguments(name, kwargs, message):
    with pytest.raises(InputError, match=message):
        create_classifier(name, 6, kwargs=kwargs)


def test_weights_that_cannot_be_fetched(offline):
    message = (
        r"model.name=test_resnet: its pre-trained weights are not to be had .*; run once with network access"
    )
    with pytest.raises(InputError, match=message):
        create_classifier("test_resnet", 6, pretrained=True)
    with pytest.raises(InputError, match=r"model.name=hf-hub:someone/model: its pre-trained weights"):
        pretrained_width("hf-hub:someone/model")


def test_weights_of_a_local_file(classifier, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, classifier.timm_state_dict())
    overlay = KWARGS["pretrained_cfg_overlay"] | {"file": str(path), "num_classes": 6}
    kwargs = KWARGS | {"pretrained_cfg_overlay": overlay}
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(create_classifier("test_resnet", 6, True, kwargs).eval()(images), classifier(images))
    path.write_bytes(b"broken")
    with pytest.raises(InputError, match=r"not to be had .SafetensorError."):
        create_classifier("test_resnet", 6, True, kwargs)
    path.unlink()
    with pytest.raises(
        InputError, match=r"model.name=test_resnet: its pre-trained weights are not to be had"
    ):
        create_classifier("test_resnet", 6, True, kwargs)


def test_what_the_pretrained_head_tells_apart(tmp_path):
    assert pretrained_width("resnet50.tv_in1k") == 1000
    assert pretrained_width("vit_tiny_patch16_224.augreg_in21k") == 21843
    assert pretrained_width("no_such_model") is pretrained_width("resnet50.no_such_tag") is None
    assert label_names("resnet50.tv_in1k") is label_names("no_such_model") is None
    overlay = {"pretrained_cfg_overlay": {"num_classes": 2, "label_names": ["cat", "dog"]}}
    assert (pretrained_width("resnet18", overlay), label_names("resnet18", overlay)) == (2, ("cat", "dog"))
    config = {
        "architecture": "resnet18",
        "num_classes": 2,
        "label_names": ["cat", "dog"],
        "pretrained_cfg": {},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    name = f"local-dir:{tmp_path}"
    assert (pretrained_width(name), label_names(name)) == (2, ("cat", "dog"))


def test_foreign_files_are_refused(classifier, tmp_path):
    class Boom:
        def __reduce__(self):
            return (pytest.fail, ("a stranger's pickle ran",))

    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(Boom()))
    with pytest.raises(InputError, match="no safetensors file"):
        load_weights(path, classifier)
    save_weights(path, {"fc.weight": torch.zeros(5, 3)})
    with pytest.raises(InputError, match="not weights of this model"):
        load_weights(path, classifier)
    with pytest.raises(InputError, match="no such file"):
        load_weights(tmp_path / "nowhere", classifier)


def test_failed_write_leaves_the_old_file(classifier, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"a": torch.ones(1)})
    with pytest.raises(TypeError):
        save_weights(path, {"a": torch.zeros(1)}, {"note": json})  # type: ignore[dict-item]
    assert load_file(path)["a"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("bias", [True, False])
def test_a_wider_head_keeps_its_columns(classifier, bias):
    if not bias:
        classifier.head.register_parameter("bias", None)
    images = torch.rand(3, 1, 32, 32)
    before, weight = classifier(images), classifier.head.weight.clone()
    classifier.widen(9)
    after = classifier(images)
    assert torch.equal(classifier.head.weight[:6], weight)
    torch.testing.assert_close(after[:, :6], before)
    assert not after[:, 6:].any()
    assert (classifier.head.bias is not None) == bias
    assert classifier.head.weight.requires_grad
