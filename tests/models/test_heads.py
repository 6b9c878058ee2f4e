"""Heads that timm does not have, and models made again from their files."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import nn

from ftc import ClassPartition
from ftc.models import (
    create_classifier,
    description,
    fold_calibration,
    plain_timm_model,
    restore_classifier,
)
from ftc.models.heads import CosineHead

KWARGS = {"in_chans": 1, "pretrained_cfg_overlay": {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.4]}}
PARTITION = ClassPartition(6, seen=[0, 2, 4], absent=[1, 5])


@pytest.fixture(params=["linear", "cosine"])
def classifier(request):
    torch.manual_seed(0)
    return create_classifier("test_resnet", 6, kwargs=KWARGS, head=request.param).eval()


def test_a_cosine_head_knows_directions_only():
    torch.manual_seed(0)
    head, features = CosineHead(5, 3), torch.randn(7, 5)
    expected = 16 * nn.functional.cosine_similarity(features[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head(4 * features), head(features))
    assert [name for name, p in head.named_parameters() if p.requires_grad] == ["weight", "scale"]


@pytest.mark.parametrize(("gamma", "temperature"), [(0.0, 1.0), (1.5, 1.0), (-2.0, 0.5), (3.0, 4.0)])
def test_gamma_and_temperature_are_folded_into_any_head(classifier, gamma, temperature):
    images = torch.randn(5, 1, 32, 32)
    with torch.no_grad():
        expected = classifier(images)
        expected[:, list(PARTITION.absent)] += gamma
        folded = fold_calibration(classifier.timm_state_dict(), "fc", PARTITION, gamma, temperature)
        classifier.load_timm_state_dict(folded)
        torch.testing.assert_close(classifier(images), expected / temperature)


def test_a_model_is_made_again_from_its_description(classifier):
    described = json.loads(json.dumps(description(classifier)))
    again = restore_classifier(described, classifier.timm_state_dict())
    images = torch.randn(5, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), classifier(images))
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in again.data_config.items()} == {
        k: tuple(v) if isinstance(v, list) else v for k, v in classifier.data_config.items()
    }


def test_a_model_of_a_folder_is_made_again_without_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = timm.create_model("test_resnet", num_classes=6, in_chans=1, global_pool="max")
    save_for_hf(model, "hub", model_args={"in_chans": 1, "global_pool": "max"}, safe_serialization=True)
    classifier = create_classifier("local-dir:hub", 6, pretrained=True).eval()
    described = description(classifier)
    (tmp_path / "hub").rename(tmp_path / "elsewhere")
    again = restore_classifier(described, classifier.timm_state_dict())
    images = torch.randn(5, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), classifier(images))
        assert torch.equal(again(images), model.eval()(images))


def test_timm_has_linear_heads_only(classifier):
    plain = plain_timm_model(classifier)
    assert (plain is None) == isinstance(classifier.head, CosineHead)
    if plain is not None:
        images = torch.randn(5, 1, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(plain(images), classifier(images))
