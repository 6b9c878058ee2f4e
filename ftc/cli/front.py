"""The first word of ``ftc COMMAND …``: the list of commands, and each of them (no Hydra until one runs)."""

from __future__ import annotations

import ast
import difflib
import re
import runpy
import sys
from pathlib import Path

import ftc
from ftc.cli.completion import complete, script
from ftc.cli.terminal import fail, show_what_it_can

# The entry points at the root of the package, in the order of work.
COMMANDS = (
    *("prepare", "train", "evaluate", "calibrate", "report", "compare", "deploy", "predict"),
    "doctor",
)

_HELP = """\
usage: ftc COMMAND [arguments]        or: python -m ftc.COMMAND [arguments]

{commands}

ftc COMMAND --help   what a command takes
ftc --version        which version this is
Documentation        README.md and docs/ of the source; docs/commands.md

In bash (or zsh) the Tab key completes commands, keys and choices after:
  eval "$(ftc --completion bash)"
"""


def front() -> None:
    """Answer a command line of ``ftc``: list the commands, or run one as ``python -m ftc.COMMAND`` does."""
    show_what_it_can()
    match sys.argv[1:]:
        case [] | ["-h" | "--help", *_]:
            lines = (f"  {command:<{max(map(len, COMMANDS))}}  {line(command)}" for command in COMMANDS)
            print(_HELP.format(commands="\n".join(lines)), end="")
        case ["--version", *_]:
            print(f"ftc {ftc.__version__}")
        case ["--completion", *shell]:
            print(script(" ".join(shell)), end="")
        case ["--complete", typed]:
            complete(typed, COMMANDS)
        case [command, *arguments]:
            _run(command, arguments)


def line(command: str) -> str:
    """What a command does, from the first line of its module's docstring; the module is not imported."""
    source = Path(__file__).parents[1].joinpath(f"{command}.py").read_text(encoding="utf-8")
    first = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    found = re.fullmatch(rf"``python -m ftc\.{command}.*?``: (.*)\.", first)
    assert found, f"{command}: its docstring begins with ``python -m ftc.{command}``: and a line"
    return found[1]


def _run(command: str, arguments: list[str]) -> None:
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f" did you mean {near[0]}?" if near else ""
        fail(f"{command}: no such command;{hint} choose from {', '.join(COMMANDS)}")
    # Modules of the current folder are found, as with python -m.
    here = str(Path.cwd())
    if not getattr(sys.flags, "safe_path", False) and here not in sys.path:
        sys.path.insert(0, here)
    sys.argv[1:] = arguments
    # Not by its function: what starts further processes of a command asks which module is the main one.
    runpy.run_module(f"ftc.{command}", run_name="__main__", alter_sys=True)
