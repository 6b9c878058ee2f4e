"""What shapes numbers beside the configuration: versions (nothing is imported for them)."""

from __future__ import annotations

import platform
from importlib.metadata import version

LIBRARIES = ("ftc", "torch", "torchvision", "lightning", "torchmetrics", "timm")


def versions() -> dict[str, str]:
    """Versions of Python, ftc and the libraries that shape numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
