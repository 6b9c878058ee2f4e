"""Check a composed configuration and turn it into types (no torch)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from pydantic import ValidationError

from ftc.config.node import Node
from ftc.config.targets import check_targets
from ftc.errors import InputError

C = TypeVar("C", bound=Node)


def check(config: DictConfig, kind: type[C]) -> C:
    """Turn a composed configuration into types.

    Raises:
        InputError: a key is wrong; the message has one line per wrong key, with value and choices.
    """
    try:
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise InputError(f"{error.full_key}: missing; give it a value") from error
    except InterpolationKeyError as error:
        raise InputError(_explain_reference(config, error)) from error
    except InterpolationToMissingValueError as error:
        found = re.search(r"Missing mandatory value: (\S+)", str(error))
        key = found[1] if found else error.full_key
        raise InputError(f"{key}: missing; give it a value") from error
    except OmegaConfBaseException as error:
        raise InputError(" ".join(str(error).split())) from error
    content = at_home(content)
    typed = as_type(content, kind)
    check_targets(content, getattr(typed, "allow_targets", ()))
    return typed


def as_type(content: Any, kind: type[C]) -> C:
    """Turn plain content into a type.

    Raises:
        InputError: a key is wrong; the message has one line per wrong key, with value and choices.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        lines: dict[str, str] = {}
        for detail in error.errors():
            # A value that fits no branch of a union has an error per branch: the first is enough.
            lines.setdefault(*_explain(dict(detail)))
        raise InputError("\n".join(lines.values())) from error


def at_home(value: Any) -> Any:
    """A value, with ``~/`` at the beginning of texts replaced by the user's home folder."""
    if isinstance(value, dict):
        return {key: at_home(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [at_home(inner) for inner in value]
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~/") else value


def _explain_reference(config: DictConfig, error: InterpolationKeyError) -> str:
    """One line about a value that refers to a missing key."""
    found = re.search(r"'([^']+)' not found", str(error))
    missing = found[1] if found else str(error.key)
    parts = missing.split(".")
    for depth in range(len(parts) - 1, 1, -1):
        choices, choice = OmegaConf.select(config, ".".join(parts[:depth])), parts[depth]
        if isinstance(choices, DictConfig):
            # The value selects among keys, as data.source does among data.domains.
            group = parts[0]
            named = [key for key in config[group] if _value(config, f"{group}.{key}") == choice]
            # Others may repeat it.
            named.sort(key=lambda key: OmegaConf.is_interpolation(config[group], key))
            key = f"{group}.{named[0]}" if named else ".".join(parts[:depth])
            return f"{key}={choice}: no such choice; choose from {', '.join(map(str, choices))}"
    return f"{error.full_key}: refers to {missing}, which the configuration lacks; choose another, or add it"


def _value(config: DictConfig, key: str) -> Any:
    return OmegaConf.select(config, key, throw_on_resolution_failure=False)


def _explain(detail: dict[str, Any]) -> tuple[str, str]:
    """The wrong key, and one line about it."""
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return str(cause), str(cause)
    # Branches of a union, such as list[int] or a kind of partition, are not part of the key.
    parts = [
        part
        for before, part in zip(("", *detail["loc"]), detail["loc"], strict=False)
        if not (isinstance(part, str) and (_is_type(part) or (before, part) in _KINDS))
    ]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    if detail["type"] == "missing":
        return key, f"{key}: missing; give it a value"
    message = str(cause) if cause is not None else detail["msg"]
    if detail["type"] == "extra_forbidden":
        message = "no such key"
    return key, f"{key}={detail['input']}: {message[0].lower()}{message[1:]}"


def _is_type(part: str) -> bool:
    """Whether a part of a place is the branch of a union."""
    return "[" in part or part.startswith("constrained-") or part in ("int", "float", "str", "bool")


_KINDS = {
    *(("partition", kind) for kind in ("random", "near", "far", "paper", "file", "data")),
    *(("model", kind) for kind in ("timm", "clip")),
}
