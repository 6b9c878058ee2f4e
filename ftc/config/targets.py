"""Which functions and classes a configuration may name: not whatever can be imported (no torch)."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ftc.errors import InputError

# Modules that configurations name without asking.
_KNOWN = ("ftc", "torchvision.transforms", "lightning.pytorch.loggers")


def check_targets(content: Any, allowed: Sequence[str]) -> None:
    """Refuse a configuration that names code of packages nobody allowed.

    A configuration may come from a stranger, and ``_target_`` runs what it names. Known targets are those of
    ftc, torchvision's transforms, Lightning's loggers, and code of one's own: modules that no package
    installed.

    Args:
        content: the configuration, resolved.
        allowed: further modules, ``allow_targets``.

    Raises:
        InputError: another target; the message says how to allow it.
    """
    for key, target in _targets(content):
        if not any(target.startswith(f"{module}.") for module in (*_KNOWN, *allowed)) and not _own(target):
            package = target.partition(".")[0]
            raise InputError(
                f"{key}={target}: would run code that is neither ftc's nor your own; where you trust this "
                f"configuration, set allow_targets=[{package}]"
            )


def is_itself(target: str, found: Any) -> bool:
    """Whether what a known target led to belongs to it, rather than to a module that it imports."""
    module = next((m for m in _KNOWN if target.startswith(f"{m}.")), None)
    home = getattr(found, "__module__", None) or ""
    return module is None or home == module or home.startswith(f"{module}.")


def _targets(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every target of a configuration with its key."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield key, node["_target_"]
        for name, inner in node.items():
            yield from _targets(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for number, inner in enumerate(node):
            yield from _targets(inner, f"{key}[{number}]")


def _own(target: str) -> bool:
    """Whether a module is neither Python's own nor an installed package's."""
    try:
        spec = find_spec(target.partition(".")[0])
    except (ImportError, ValueError):
        return False
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    files = [Path(place).resolve() for place in places if place and Path(place).exists()]
    installed = [
        Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib", "platstdlib")
    ]
    return bool(files) and not any(folder in file.parents for file in files for folder in installed)
