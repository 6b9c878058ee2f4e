"""How arguments are spelt for Hydra (no torch)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException


def spelt(argument: str, groups: Path | None) -> list[str]:
    """An argument of the command line as the overrides that Hydra understands.

    * ``group=null`` and ``~group`` choose nothing of a group, also where several are chosen: ``group=[]``.
    * A choice of a group is a word or a list of words, so that any other value is taken for a word.
    * ``key={_target_: …}`` replaces a node. Hydra would merge it into the old one, whose arguments are
      another target's.
    * A value that Hydra cannot read, such as a path with quotes, is the text that it is.

    Args:
        argument: the argument.
        groups: the folder that has a folder for each group; None where there is no group.
    """
    key, is_override, value = argument.partition("=")
    if re.fullmatch(r"~[\w/]+", argument) and groups and (groups / argument[1:]).is_dir():
        return [f"{argument[1:]}=[]"]
    if not is_override or not re.fullmatch(r"\+{0,2}[\w./@:]+", key):
        return [argument]
    is_group = groups is not None and (groups / key).is_dir()
    if re.fullmatch(r"\{\s*_target_\s*:.*\}", value, flags=re.DOTALL) and not key.startswith("+"):
        return [f"{key}=[]", f"+{argument}"] if is_group else [f"{key}=null", argument]
    try:
        read = OverridesParser.create().parse_override(argument)
    except HydraException:
        return [f"{key}={quoted(value)}"]
    if not is_group or read.is_sweep_override():
        return [argument]
    chosen: Any = read.value()
    if chosen is None:
        return [f"{key}=[]"]
    choices = chosen if isinstance(chosen, list) else [chosen]
    words = all(isinstance(choice, (str, QuotedString)) for choice in choices)
    return [argument] if words else [f"{key}={quoted(value)}"]


def quoted(text: str) -> str:
    """A text in quotes, which Hydra takes as it is."""
    # Backslashes are doubled where they stand before a quote only.
    return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text) + "'"
