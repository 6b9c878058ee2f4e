"""Uploads: with a login they happen, without one they are only told of."""

from __future__ import annotations

import huggingface_hub
import pytest

from ftc import InputError
from ftc.export.hub import push


class Api:
    """Stands in for the Hub, which tests cannot reach."""

    calls: list[tuple]

    def __init__(self, **arguments) -> None:
        pass

    def create_repo(self, name, exist_ok):
        self.calls.append(("create", name, exist_ok))
        return f"https://hub/{name}"

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.calls.append(("upload", repo_id, folder_path.name))
        if repo_id.startswith("stranger"):
            raise OSError("403 Forbidden: it is not yours")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deployed").mkdir()
    for name in ("config.json", "README.md"):
        (tmp_path / "deployed" / name).write_text(name)
    return tmp_path / "deployed"


@pytest.fixture
def api(monkeypatch):
    Api.calls = []
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return Api


@pytest.mark.parametrize("login", [True, False])
def test_a_login_decides(folder, api, monkeypatch, login):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "secret" if login else None)
    told: list[str] = []
    push(folder, "you/model", told.append)
    if login:
        assert api.calls == [("create", "you/model", True), ("upload", "you/model", "deployed")]
        assert told == ["Uploaded: https://hub/you/model"]
    else:
        assert api.calls == []
        assert told[0].endswith("nothing was uploaded; it would be README.md, config.json")


def test_what_the_hub_refuses_is_one_line(folder, api, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "secret")
    with pytest.raises(
        InputError, match=r"^push=stranger/model: 403 Forbidden.*is complete, upload it by hand$"
    ):
        push(folder, "stranger/model", print)
