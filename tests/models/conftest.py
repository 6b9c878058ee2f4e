from __future__ import annotations

import pytest

from tests.models.classifiers import make


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No hub, and nothing of it in a cache."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.fixture
def origin():
    return make(1)


@pytest.fixture
def target():
    return make(2)
