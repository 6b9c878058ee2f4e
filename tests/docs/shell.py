"""What a block of Bash runs: Bash itself says so, with a note of its arguments in place of every program."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.blocks import BLOCKS, ROOT, Block
from tests.docs.stand_ins import filled

# No program is found, so that Bash asks this function to run it: loops, variables, quotes and continued lines
# are read by Bash itself. What changes the folder or reads a file of commands has nothing to work on.
_NOTE = """\
exec 3>&1 >/dev/null
command_not_found_handle() { printf '%s\\0' "${BASH_LINENO[0]}" "$#" "$@" >&3; }
cd() { :; }
source() { :; }
PATH=/nonexistent
"""


@dataclass(frozen=True)
class Command:
    """A program that a block runs.

    Attributes:
        place: its page and line.
        words: the program and its arguments, as Bash hands them over.
    """

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place}: {' '.join(self.words)}"


def commands_of(block: Block) -> list[Command]:
    """The commands of a block of Bash, in the order in which Bash comes to them.

    Raises:
        ValueError: Bash cannot read the block, or a placeholder is unknown; the message says where and what.
    """
    text = filled(block.text)
    if unknown := re.search(r"<[a-z][\w -]*>", text):
        raise ValueError(f"{block.place}: {unknown[0]}: tests/docs/stand_ins.py does not fill it")
    done = subprocess.run(
        ["bash", "-euc", _NOTE + text], cwd=ROOT / "tests", capture_output=True, check=False
    )
    if done.returncode != 0 or done.stderr:
        raise ValueError(f"{block.place}: {done.stderr.decode().strip()}")
    return list(_read(block, done.stdout.decode().split("\0")))


def _read(block: Block, notes: list[str]) -> Iterator[Command]:
    while len(notes) > 1:
        line, count = int(notes[0]), int(notes[1])
        place = f"{block.page}:{block.line + line - _NOTE.count(chr(10))}"
        yield Command(place, tuple(notes[2 : 2 + count]))
        notes = notes[2 + count :]


def of_ftc(words: tuple[str, ...]) -> tuple[str, list[str]] | None:
    """Name and arguments of a command of ftc's, also behind ``torchrun`` or ``srun``; None of others."""
    for place, word in enumerate(words[:-1]):
        if word == "-m" and words[place + 1].startswith("ftc."):
            return words[place + 1].removeprefix("ftc."), list(words[place + 2 :])
    program = Path(words[0]).name
    if program == "ftc" and len(words) > 1 and not words[1].startswith("-"):
        return words[1], list(words[2:])
    return None


def the_arguments(name: str, *said: str) -> list[str]:
    """The arguments of the first command of ftc's on the pages that has a name and some words."""
    blocks = (
        block for block in BLOCKS if block.language == "bash" and all(word in block.text for word in said)
    )
    calls = (of_ftc(command.words) for block in blocks for command in commands_of(block))
    return next(call[1] for call in calls if call and call[0] == name and set(said) <= set(call[1]))
