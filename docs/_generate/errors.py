"""``docs/errors.md``: what every message of the code is about, its cause and its mend."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from docs._generate.text import table

ROOT = Path(__file__).parents[2]
PAGE = "errors.md"

HEAD = """# Errors

What ftc answers to bad input, bad places and bad moments, by the room of the code that says it. A
command prints one line, `ftc: error: about: cause; mend`, ends with status 2 and leaves nothing
half-written. `…` stands for a key, a value, a file or a number; where the last column is empty, the
cause says what to do. Made by `make docs` from the messages in the code.

What is no error of yours ends with a traceback; please report it, with what `ftc doctor` prints.

Other endings: Ctrl-C and SIGTERM say from where the same command goes on, with status 130 and 143. A
sweep goes on with its other jobs, lists what failed and ends with status 1.
"""

_RAISED = {"InputError", "DamagedError", "FinishedMeanwhileError", "fail"}
# Modules whose functions return the lines.
_RETURNED = {"failures", "explain"}


def messages(source: str, returned: bool = False) -> Iterator[str]:
    """The messages of our own that a module raises or prints, in order, and those that it returns."""
    for node in ast.walk(ast.parse(source)):
        said = None
        if isinstance(node, ast.Call) and node.args and _name(node.func) in _RAISED:
            said = node.args[0]
        elif returned and isinstance(node, ast.Return) and isinstance(node.value, (ast.JoinedStr, ast.BinOp)):
            said = node.value
        text = "" if said is None else _text(said)
        # A key whose reason is another library's tells nothing.
        if any(letter.isalpha() for letter in text.split(": ", 1)[-1]):
            yield text


def _name(function: ast.expr) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))


def _text(node: ast.expr) -> str:
    """A message with ``…`` in place of what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "…"


def parts(message: str) -> tuple[str, str, str]:
    """What a message is about (a key, a file), the cause and the mend; empty where it has none."""
    about, colon, rest = message.partition(": ")
    about, rest = (about, rest) if colon else ("", message)
    cause, _, mend = rest.partition("; ")
    return about, cause, mend


def page() -> str:
    """The page."""
    sections = [HEAD]
    for room in sorted({path.relative_to(ROOT / "ftc").parts[0] for path in (ROOT / "ftc").rglob("*.py")}):
        place = ROOT / "ftc" / room
        files = [place] if place.is_file() else sorted(place.rglob("*.py"))
        lines = dict.fromkeys(
            text
            for file in files
            for text in messages(file.read_text(encoding="utf-8"), file.stem in _RETURNED)
        )
        if lines:
            rows = [[_cell(part) for part in parts(line)] for line in lines]
            sections.append(f"## {room.removesuffix('.py')}\n\n" + table(("about", "cause", "mend"), rows))
    return "\n".join(sections)


def _cell(text: str) -> str:
    # What a message says is no Markdown.
    return re.sub(r"([*_`<>\[\]{}\\~])", r"\\\1", " ".join(text.split()))
