"""How arguments are spelt for Hydra (no torch)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException

# Flags of Hydra's that take the next argument as their value.
_FLAGS = {
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
}


def named(arguments: list[str], key: str | None) -> list[str]:
    """Arguments with the plain words among them as the list of a key, such as folders of runs.

    Args:
        arguments: the arguments of a command line.
        key: the key; None for a command that takes no plain words.
    """
    if key is None:
        return arguments
    words: list[str] = []
    others: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_word = not argument.startswith(("-", "~", "+")) and before not in _FLAGS
        is_word = is_word and (Path(argument).exists() or "=" not in argument)
        (words if is_word else others).append(argument)
    return [*others, f"{key}=[{','.join(map(_in_a_list, words))}]"] if words else others


def _in_a_list(word: str) -> str:
    return word if re.fullmatch(r"[\w./-]+", word) else quoted(word)


def spelt(argument: str, groups: Path | None) -> list[str]:
    """An argument of the command line as the overrides that Hydra understands.

    * ``group=null`` and ``~group`` choose nothing of a group, also where several are chosen: ``group=[]``.
    * A choice of a group is a word or a list of words, so that any other value is taken for a word.
    * ``key={…}`` is merged into what the key has, new names too: ``++key={…}``.
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
    if read.is_sweep_override():
        return [argument]
    if not is_group:
        merges = isinstance(read.value(), dict) and not key.startswith("+")
        return [f"++{argument}" if merges else argument]
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
