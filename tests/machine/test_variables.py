"""What of the environment may be shown to others."""

from __future__ import annotations

import pytest

from ftc.machine.variables import relevant, shown


def test_secrets_are_not_shown():
    environment = {
        "WANDB_API_KEY": "abc",
        "HF_TOKEN": "def",
        "FTC_DB_PASSWORD": "ghi",
        "WANDB_MODE": "offline",
        "HF_ENDPOINT": "https://me:secret@host/x",
        "MY_TOKEN": "jkl",
        "PATH": "/bin",
    }
    assert relevant(environment) == {
        "FTC_DB_PASSWORD": "set",
        "HF_ENDPOINT": "https://…@host/x",
        "HF_TOKEN": "set",
        "WANDB_API_KEY": "set",
        "WANDB_MODE": "offline",
    }


@pytest.mark.parametrize(
    ("home", "text", "seen"),
    [
        ("/home/ann", "/home/ann/x:/home/ann: /home/anna /data/home/ann", "~/x:~: /home/anna /data/home/ann"),
        ("/home/ann", '{"a": "/home/ann/b"}', '{"a": "~/b"}'),
        ("/", "/data", "/data"),
    ],
)
def test_the_home_folder_is_a_tilde(monkeypatch, home, text, seen):
    monkeypatch.setenv("HOME", home)
    assert shown(text) == seen
