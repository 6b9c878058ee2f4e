"""How a model is executed changes nothing that it says, beyond the last places."""

from __future__ import annotations

import copy

import pytest
import torch

from ftc.models import create_classifier


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return create_classifier("test_resnet", 6, kwargs={"in_chans": 3}).eval()


def test_channels_last(classifier):
    images = torch.randn(4, 3, 32, 32)
    expected = classifier(images)
    classifier.use_channels_last()
    assert all(
        p.is_contiguous(memory_format=torch.channels_last) for p in classifier.parameters() if p.ndim == 4
    )
    torch.testing.assert_close(classifier(images), expected)


@pytest.mark.slow
def test_compiled(classifier):
    images = torch.randn(4, 3, 32, 32)
    expected = classifier(images)
    names = list(classifier.timm_state_dict())
    classifier.backbone.compile()
    torch.testing.assert_close(classifier(images), expected, atol=1e-5, rtol=1e-4)
    assert list(classifier.timm_state_dict()) == names
    torch.testing.assert_close(copy.deepcopy(classifier)(images), expected, atol=1e-5, rtol=1e-4)
