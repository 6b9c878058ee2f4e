"""Completion in bash and zsh: commands, Hydra's keys and choices, flags (no Hydra until a key is asked for).

The shell hands the line, up to the cursor, to ``ftc --complete LINE``, which prints a candidate a line.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module

from ftc.cli.terminal import fail

# Readline breaks words at characters such as "=", and then replaces the last part ($2) alone.
_SCRIPT = """\
_ftc_complete() {
    local line="${COMP_LINE:0:$COMP_POINT}" part="$2" word choice
    word="${line##* }"
    COMPREPLY=()
    while IFS= read -r choice; do
        [[ -n "$choice" ]] || continue
        # What may go on, such as "key=", gets no space behind it.
        [[ "$choice" == *[=./] ]] || choice+=" "
        COMPREPLY+=("${choice#"${word%"$part"}"}")
    done < <("${1:-ftc}" --complete "$line" 2>/dev/null)
}
complete -o nospace -o default -F _ftc_complete ftc
"""
_SCRIPTS = {
    "bash": _SCRIPT,
    "zsh": "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }\n"
    "autoload -Uz bashcompinit && bashcompinit\n" + _SCRIPT,
}
_FLAGS = ("--completion", "--help", "--version")


def script(shell: str) -> str:
    """The commands that teach a shell to complete ``ftc``; status 2 for a shell that is not known."""
    if shell not in _SCRIPTS:
        fail(f"{f'--completion {shell}'.strip()}: choose from {', '.join(_SCRIPTS)}")
    return _SCRIPTS[shell]


def complete(typed: str, commands: Sequence[str]) -> None:
    """Print the candidates for the last word of a command line, one a line; nothing where there are none.

    Args:
        typed: the line up to the cursor, the program's name included.
        commands: names of the commands.
    """
    *before, word = re.split(r"\s+", typed.lstrip())
    if len(before) == 1:
        _print(_FLAGS if word.startswith("-") else commands, word)
    elif before[1:] == ["--completion"]:
        _print(_SCRIPTS, word)
    elif before and before[1] in commands:
        _complete_command(before[1], before[2:], word)


def _complete_command(command: str, before: list[str], word: str) -> None:
    module = import_module(f"ftc.{command}")
    if hasattr(module, "parser"):
        _print(_of_parser(module.parser(), before, word), word)
        return
    # Hydra takes the first word for the program's name; its form for fish is one candidate a line.
    os.environ["COMP_LINE"] = " ".join([command, *before, word])
    sys.argv[1:] = ["--shell-completion", "query=fish"]
    module.main()


def _of_parser(parser: argparse.ArgumentParser, before: Sequence[str], word: str) -> Iterable[str]:
    """What argparse takes next: values of the option before, options, or a choice that was not made yet."""
    options = {name: action for action in parser._actions for name in action.option_strings}
    if before and before[-1] in options and options[before[-1]].nargs != 0:
        return options[before[-1]].choices or ()
    if word.startswith("-"):
        return options
    choices = [action.choices for action in parser._actions if action.choices and not action.option_strings]
    return [name for names in choices if not {*names} & {*before} for name in names]


def _print(candidates: Iterable[str], word: str) -> None:
    for candidate in candidates:
        if candidate.startswith(word):
            print(candidate)
