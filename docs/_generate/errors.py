"""``docs/errors.md``, made from the messages in the code: ``python -m tests.errors`` writes it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"

HEAD = """# Errors

What ftc answers to bad input, bad places and bad moments, by the room of the code that says it. A
command prints one line, `ftc: error: …`, ends with status 2 and leaves nothing half-written. `…` stands
for a key, a value, a file or a number. Each line says what is wrong and, after the semicolon, what to
do. Made by `python -m tests.errors`.

What is no error of yours ends with a traceback; please report it.

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


def page() -> str:
    """The page."""
    parts = [HEAD]
    for room in sorted({path.relative_to(ROOT / "ftc").parts[0] for path in (ROOT / "ftc").rglob("*.py")}):
        place = ROOT / "ftc" / room
        files = [place] if place.is_file() else sorted(place.rglob("*.py"))
        lines = dict.fromkeys(
            text
            for file in files
            for text in messages(file.read_text(encoding="utf-8"), file.stem in _RETURNED)
        )
        if lines:
            title = room.removesuffix(".py")
            parts.append(
                f"## {title}\n\n" + "\n".join(f"- `{line.replace('`', chr(39))}`" for line in lines) + "\n"
            )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {page().count(chr(10) + '- ')} messages", file=sys.stderr)
