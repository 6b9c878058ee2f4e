"""What torch tells of devices, with a CUDA of our own making."""

from __future__ import annotations

import contextlib
import json
import warnings
from types import SimpleNamespace

import torch

from ftc.machine import devices
from ftc.machine.devices import Device, torch_here
from ftc.machine.probe import probe


def test_devices_and_what_is_wrong_with_them_are_told(monkeypatch):
    def properties(index: int) -> SimpleNamespace:
        if index:
            raise RuntimeError("CUDA error:\n  device is busy")
        return SimpleNamespace(name="A100", total_memory=40_000)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: warnings.warn("old driver", stacklevel=1) or True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    # The process that asks gets it as the last line of what the other one prints.
    printed = f"hello from a library\n{json.dumps(probe())}\n"
    answer = SimpleNamespace(returncode=0, stdout=printed, stderr="")
    monkeypatch.setattr(devices.subprocess, "run", lambda *_, **__: answer)
    found = torch_here()
    assert found.error is None
    assert found.version == torch.__version__ and found.threads == torch.get_num_threads()
    assert found.devices == (Device("A100", 40_000, True),)
    assert found.warnings == ("old driver", "CUDA error: device is busy")
