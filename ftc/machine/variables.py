"""Environment variables that change what ftc and its libraries do, and text that may be shown to others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_RELEVANT = re.compile(r"(FTC|HF|WANDB|CUDA|NCCL|GLOO|OMP|MKL|TORCH)_")
_SECRET = re.compile(r"KEY|TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL", re.IGNORECASE)


def relevant(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that matter, by name; of secrets only that they are set.

    Args:
        environment: all variables.
    """
    return {
        name: "set" if _SECRET.search(name) else shown(value)
        for name, value in sorted(environment.items())
        if _RELEVANT.match(name)
    }


def home() -> Path | None:
    """The user's home folder; None where there is none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def shown(text: str) -> str:
    """A text with ``~`` for the home folder and without user names and passwords in addresses."""
    if home() not in (None, Path("/")):
        text = re.sub(rf"(?<![\w/.-]){re.escape(str(home()))}(?![\w.-])", "~", text)
    return re.sub(r"://[^/@\s]+@", "://…@", text)
