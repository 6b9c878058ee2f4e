from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from ftc import InputError
from ftc.models import (
    create_clip_classifier,
    description,
    load_checkpoint,
    plain_timm_model,
    restore_classifier,
    save_weights,
)

open_clip = pytest.importorskip("open_clip")

NAME = "ftc-tiny"
CLASSES = ("alarm_clock", "mug", "great white shark")
TEMPLATES = ("a photo of a {}.", "itap of the {}.")


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory):
    """A CLIP of one layer in open_clip's registry."""
    folder = tmp_path_factory.mktemp("configs")
    vision = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 32, "head_width": 16}
    text = {"context_length": 16, "vocab_size": 49408, "layers": 1, "width": 32, "heads": 2}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    (folder / f"{NAME}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def reference(**arguments):
    torch.manual_seed(0)
    return open_clip.create_model(NAME, **arguments).eval()


def make(*arguments, **more):
    torch.manual_seed(0)
    return create_clip_classifier(NAME, None, *(arguments or (CLASSES,)), **more).eval()


@torch.no_grad()
def test_logits_are_clips_own():
    model, tokenizer = reference(), open_clip.get_tokenizer(NAME)
    images = torch.randn(4, 3, 32, 32)
    texts = [[t.format(name.replace("_", " ")) for t in TEMPLATES] for name in CLASSES]
    embedded = torch.stack([model.encode_text(tokenizer(t), normalize=True).mean(0) for t in texts])
    text = torch.nn.functional.normalize(embedded, dim=1)
    image = model.encode_image(images, normalize=True)
    classifier = make(CLASSES, TEMPLATES)
    features, logits = classifier.features_and_logits(images)
    torch.testing.assert_close(features, image)
    torch.testing.assert_close(logits, model.logit_scale.exp() * image @ text.T)
    assert classifier.num_features == 24
    assert not classifier.head.bias.any()
    plain = open_clip.build_zero_shot_classifier(model, tokenizer, ["mug"], ["a photo of a {}."])
    torch.testing.assert_close(make(["mug"])(images), model.logit_scale.exp() * image @ plain)


def test_features_have_length_one_in_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        features, logits = make().features_and_logits(torch.randn(4, 3, 32, 32))
    assert features.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))


def test_both_parts_train():
    classifier = create_clip_classifier(NAME, None, CLASSES)
    assert all(module.training for module in classifier.modules())
    classifier(torch.randn(2, 3, 32, 32)).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in classifier.parameters())


def test_weights_survive_the_file(tmp_path):
    classifier = make()
    assert {name.split(".")[0] for name in classifier.timm_state_dict()} == {"visual", "head"}
    save_weights(tmp_path / "clip.safetensors", classifier.timm_state_dict())
    other = create_clip_classifier(NAME, None, CLASSES, weights=False).eval()
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(other(images), classifier(images))
    load_checkpoint(tmp_path / "clip.safetensors", other)
    assert torch.equal(other(images), classifier(images))


def test_weights_of_a_file(tmp_path):
    path = tmp_path / "clip.pt"
    model = reference()
    torch.save(model.state_dict(), path)
    torch.manual_seed(1)
    found = create_clip_classifier(NAME, str(path), CLASSES).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(found(images), make()(images))
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"weights of ftc-tiny are not to be had .* choose the model.name"):
        create_clip_classifier(NAME, str(path), CLASSES)


@pytest.mark.parametrize("quick", [True, False])
def test_activation_is_that_of_the_weights(quick, monkeypatch):
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: {"quick_gelu": quick})
    torch.manual_seed(0)
    found = create_clip_classifier(NAME, "tag", CLASSES, weights=False).eval()
    images = torch.randn(2, 3, 32, 32)
    same, other = (
        reference(force_quick_gelu=q).encode_image(images, normalize=True) for q in (quick, not quick)
    )
    torch.testing.assert_close(found.backbone(images), same)
    assert not torch.allclose(found.backbone(images), other)


def test_openai_weights_want_the_quick_activation():
    assert open_clip.get_pretrained_cfg("ViT-B-32", "openai")["quick_gelu"]
    assert not open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k").get("quick_gelu", False)


@pytest.mark.parametrize("resize_mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessing_is_open_clips(resize_mode, interpolation, monkeypatch):
    config = {
        "resize_mode": resize_mode,
        "interpolation": interpolation,
        "mean": (0.1, 0.2, 0.3),
        "std": (0.5, 0.6, 0.7),
    }
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: config)
    found = create_clip_classifier(NAME, "tag", CLASSES, weights=False).data_config
    pixels = np.random.default_rng(0).integers(0, 256, (48, 70, 3), dtype=np.uint8)
    expected = open_clip.image_transform(32, is_train=False, **config)(Image.fromarray(pixels))
    assert torch.equal(create_transform(**found)(Image.fromarray(pixels)), expected)


def test_preprocessing_that_timm_does_not_have(monkeypatch):
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: {"resize_mode": "longest"})
    with pytest.raises(
        InputError, match=r"model.name=ftc-tiny: resizes by longest; choose a model that resizes by"
    ):
        create_clip_classifier(NAME, "tag", CLASSES, weights=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ViT-B-23", None, CLASSES), "model.name=ViT-B-23: no model of open_clip; near names: ViT-B-32"),
        (
            ("ViT-B-32", "opanai", CLASSES),
            "model.pretrained=opanai: no such file or weights .* from openai, ",
        ),
        ((NAME, "openai", CLASSES), "no such file or weights of ftc-tiny; choose from none"),
        ((NAME, None, ()), "model.name=ftc-tiny: wants class names"),
        ((NAME, None, CLASSES, ("a photo.",)), "model.templates: 'a photo.' has no {}"),
        (("local-dir:/nowhere", "x", CLASSES), r"not to be had \(FileNotFoundError\)"),
    ],
)
def test_bad_requests_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        create_clip_classifier(*arguments)


def test_no_network(offline):
    message = (
        r"model.pretrained=openai: the weights of ViT-B-32 are not to be had \(RuntimeError\); run once with"
    )
    with pytest.raises(InputError, match=message):
        create_clip_classifier("ViT-B-32", "openai", CLASSES)


def test_open_clip_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    message = r"model.name=ViT-B-32: needs open_clip, which is not installed; pip install 'ftc\[clip\]'"
    with pytest.raises(InputError, match=message):
        create_clip_classifier("ViT-B-32", "openai", CLASSES)


@torch.no_grad()
def test_clip_is_made_again_and_is_no_timm_model():
    classifier = make()
    again = restore_classifier(description(classifier), classifier.timm_state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), classifier(images))
    assert plain_timm_model(classifier) is None
