"""The doctor: one examination in two forms, on machines where something is missing or broken."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ftc.machine.devices import Device, Torch
from ftc.machine.examination import Examination, System, Wandb, examined
from ftc.machine.folders import Folder
from ftc.machine.packages import Extra, Installation, Requirement
from tests.commands import run_fresh

HELD = Requirement("torch", ">=2.6", "2.9.1", True)
OLD = Requirement("timm", ">=1.0.26", "0.9", False)
ABSENT = Requirement("wandb", ">=0.31", None, False)
GPU = Device("NVIDIA H100 80GB HBM3", 85_000_000_000, True)


def examination(*requirements: Requirement, torch: Torch | None = None, **code: object) -> Examination:
    fields = {"version": "0.2.0", "folder": "/code/ftc", "editable": True, "installed": "/code/ftc"}
    extras = [Extra("hub", [], "pip install 'ftc[hub]'"), Extra("ray", [ABSENT], "pip install 'ftc[ray]'")]
    if torch is None:
        torch = Torch(None, "2.9.1", "CUDA 13.0", (GPU,), ("driver too old " * 9,), 8, "/root/hub")
    return Examination(
        Installation(**{**fields, "commit": "abc1234", **code}, requirements=[*requirements], extras=extras),
        System("Linux-6", "3.11.2", "/usr/bin/python", 8, None),
        torch,
        Wandb("0.31", False, None, "wandb/", "WANDB_MODE=x: no such mode"),
        (
            Folder("outputs", "outputs", "there", 3_210_000_000, False, True, 5_000_000_000_000),
            Folder("hub", "/mnt/hub", "a link to nothing", 0, True, False, None),
        ),
        {},
    )


def test_both_forms_tell_the_same():
    found = examination(HELD)
    text, content = found.text(), json.loads(found.json())
    assert found.holds and content["holds"]
    assert text.endswith("All requirements hold.")
    for line in (
        "ftc        0.2.0, commit abc1234",
        "installed  editable\n",
        "CPU        8 usable cores, 8 threads (OMP_NUM_THREADS is not set)",
        "torch      2.9.1 for CUDA 13.0",
        "devices    NVIDIA H100 80GB HBM3, 85.0 GB, bf16",
        "torch  2.9.1  >=2.6",
        "hub  complete",
        "ray  lacks wandb>=0.31: pip install 'ftc[ray]'",
        "outputs  more than 3.2 GB, writable, 5.0 TB free",
        "hub      a link to nothing, NOT WRITABLE, unknown free\n           /mnt/hub",
        "mode       none: WANDB_MODE=x: no such mode",
        "none of the variables that matter is set",
    ):
        assert line in text
    assert max(map(len, text.splitlines())) <= 80
    assert content["torch"]["devices"] == [{"name": GPU.name, "memory": GPU.memory, "bf16": True}]
    assert content["ftc"]["extras"][1]["missing"][0]["name"] == "wandb"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            examination(HELD, OLD, ABSENT),
            "Requirements that do not hold:\n  pip install 'timm>=1.0.26'\n  pip install 'wandb>=0.31'",
        ),
        (examination(HELD, torch=Torch("OSError: libx.so")), "torch cannot be imported: OSError: libx.so"),
        (
            examination(version=None, installed=None),
            "ftc is not installed, so that its requirements are not known: pip install -e .",
        ),
    ],
)
def test_what_does_not_hold_ends_the_text(found, said):
    assert not found.holds
    assert found.text().endswith(f"\n\n{said}")


def test_missing_and_wrong_requirements_stand_below_each_other():
    text = examination(HELD, OLD, ABSENT).text()
    assert "torch  2.9.1  >=2.6\n  timm   0.9    WRONG, wants >=1.0.26\n" in text
    assert "\n  wandb         MISSING, wants >=0.31\n" in text


def test_code_that_is_not_the_installed_one_is_said():
    text = examination(HELD, installed="/other/ftc", editable=False).text()
    assert "installed  as a copy, but as another folder: /other/ftc" in text


def test_a_broken_torch_is_a_line_of_the_doctors(tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so: cannot open')")
    (tmp_path / "outputs").mkdir()
    result = run_fresh("doctor", tmp_path, "--json", WANDB_API_KEY="0123456789", PYTHONDONTWRITEBYTECODE="1")
    assert (result.returncode, result.stderr) == (1, "")
    content = json.loads(result.stdout)
    assert content["torch"]["error"] == "OSError: libcudart.so: cannot open"
    assert content["ftc"]["version"] and content["wandb"]["logged_in"] is True
    assert content["environment"]["WANDB_API_KEY"] == "set" and "0123456789" not in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"torch.py", "outputs"}


def test_a_torch_that_ends_the_process_is_a_line_as_well(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    found = examined()
    assert found.torch == Torch("its process was ended by signal 9")
    assert found.wandb.mode is None and found.wandb.error.startswith("WANDB_MODE=sometimes: no such mode")


@pytest.mark.slow
def test_this_machine_is_well(tmp_path):
    line = [sys.executable, "-m", "ftc.doctor"]
    result = subprocess.run(line, cwd=tmp_path, text=True, capture_output=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("All requirements hold.\n")
