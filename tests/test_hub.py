"""The hub is asked where it can be reached, and not waited for where it cannot."""

from __future__ import annotations

import socket

import pytest
from huggingface_hub import constants

from ftc.hub import hub_within_reach
from tests.commands import run_fresh


@pytest.fixture
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_a_hub_that_answers_is_asked(no_proxies, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with hub_within_reach():
            assert not constants.HF_HUB_OFFLINE


def test_a_hub_that_nobody_leads_to_is_not_asked(no_proxies, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(ZeroDivisionError), hub_within_reach():
        assert constants.HF_HUB_OFFLINE
        _ = 1 / 0
    assert not constants.HF_HUB_OFFLINE
    # What lies behind a proxy is not ours to know.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with hub_within_reach():
        assert not constants.HF_HUB_OFFLINE


def test_without_network_a_model_of_the_hub_is_one_line(tmp_path):
    for folder in ("train/a", "test/a"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        from PIL import Image

        Image.new("RGB", (9, 9), (len(folder), 0, 0)).save(tmp_path / "photos" / folder / "0.png")
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    options = ("experiment=folder", "data.root=photos", "model.name=hf-hub:you/model")
    done = run_fresh("train", tmp_path, *options, "data.columns=model", **hub)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("ftc: error: model.name=hf-hub:you/model: its pre-trained weights are not")
