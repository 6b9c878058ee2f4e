"""``python -m ftc.machine.probe`` prints what torch sees: a `ftc.machine.devices.Torch` as JSON."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import torch


def probe() -> dict[str, Any]:
    """The fields of `ftc.machine.devices.Torch`."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        devices, error = _devices()
    return {
        "version": torch.__version__,
        "build": _build(),
        "devices": devices,
        "warnings": [" ".join(str(warning.message).split()) for warning in said] + error,
        "threads": torch.get_num_threads(),
        "hub": torch.hub.get_dir(),
    }


def _build() -> str:
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"


def _devices() -> tuple[list[dict[str, Any]], list[str]]:
    """The devices, and why some cannot be asked, such as one that another process has for itself."""
    devices: list[dict[str, Any]] = []
    try:
        devices.extend(_asked())
    except RuntimeError as error:
        return devices, [" ".join(str(error).split())]
    return devices, []


def _asked() -> Iterator[dict[str, Any]]:
    # Whether there are any is asked first: a warning says why there are none.
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        with torch.cuda.device(index):
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        properties = torch.cuda.get_device_properties(index)
        yield {"name": properties.name, "memory": properties.total_memory, "bf16": bf16}
    if torch.backends.mps.is_available():
        yield {
            "name": "Apple GPU (MPS)",
            "memory": torch.mps.recommended_max_memory(),
            "bf16": torch.backends.mps.is_macos_or_newer(14, 0),
        }


if __name__ == "__main__":
    print(json.dumps(probe()))
