"""What torch sees, asked in a process of its own: a broken torch may end the process that imports it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

# How long (s) torch may take to be imported and to find devices.
_PATIENCE = 120.0


@dataclass(frozen=True)
class Device:
    """An accelerator.

    Attributes:
        name: its name, as the driver says it.
        memory: its memory in bytes.
        bf16: whether it computes in bfloat16 without emulation.
    """

    name: str
    memory: int
    bf16: bool


@dataclass(frozen=True)
class Torch:
    """The installed torch.

    Attributes:
        error: why it cannot be imported; None where it can.
        version: its version.
        build: what it was built for: ``CUDA 13.0``, ``ROCm 6.4`` or ``CPU``.
        devices: accelerators that it sees.
        warnings: what it says while it looks for them.
        threads: threads of an operation on the CPU.
        hub: the folder of weights that it and timm download.
    """

    error: str | None = None
    version: str | None = None
    build: str | None = None
    devices: tuple[Device, ...] = ()
    warnings: tuple[str, ...] = ()
    threads: int | None = None
    hub: str | None = None


def torch_here() -> Torch:
    """What `ftc.machine.probe` prints, or why it does not."""
    line = [sys.executable, "-m", "ftc.machine.probe"]
    try:
        found = subprocess.run(line, text=True, capture_output=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return Torch(f"no answer within {_PATIENCE:.0f} seconds")
    if found.returncode < 0:
        return Torch(f"its process was ended by signal {-found.returncode}")
    if found.returncode:
        return Torch((found.stderr.strip().splitlines() or [f"exit status {found.returncode}"])[-1])
    content: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    devices = tuple(Device(**device) for device in content.pop("devices"))
    return Torch(devices=devices, warnings=tuple(content.pop("warnings")), **content)
