"""One-line error messages (no torch)."""

from __future__ import annotations

import difflib
import sys

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ftc.cli.failures import of_file
from ftc.errors import InputError


def explain(error: BaseException) -> str | None:
    """One line about bad input, an error of Hydra, OmegaConf or YAML, or a file; None about any other."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, YAMLError):
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"{mark.name}: line {mark.line + 1}: "
        return f"{where}no YAML ({getattr(error, 'problem', None) or 'it cannot be read'}); correct the file"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: cannot be read; Hydra wants quotes of its own, inside the shell's, around "
            "special characters: 'key=\"value\"'"
        )
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _of_configuration(error)
    return of_file(error) if isinstance(error, OSError) else None


def _of_configuration(error: BaseException) -> str:
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={choice}: no such choice; choose from {', '.join(error.options)}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
            key = str(cause.full_key or cause.key)
            names = sorted(str(name) for name in cause.parent_node)
            if str(cause.key) not in names:
                near = difflib.get_close_matches(str(cause.key), names, n=1)
                hint = f" did you mean {near[0]}?" if near else ""
                mend = f"choose from {', '.join(names)}" if names else "add it with a leading +"
                return f"{_override_of(key)}: no such key;{hint} {mend}"
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split())


def _override_of(key: str) -> str:
    """The command-line argument that set a key, or the key itself."""
    return next((a for a in sys.argv[1:] if a.lstrip("+~").partition("=")[0].startswith(key)), key)
