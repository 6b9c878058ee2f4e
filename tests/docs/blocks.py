"""The fenced code blocks of the README and the docs, found by themselves."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if "/_" not in p.relative_to(ROOT).as_posix()),
]
# Languages whose blocks are drawings or outputs.
SHOWN = ("", "text")

_FENCED = re.compile(
    r"^(?P<indent> *)```(?P<language>[^`\n]*)\n(?P<text>.*?)^(?P=indent)```[ \t]*$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: path of its page, from the root of the repository.
        line: number of its fence's line on the page.
        language: what its fence says, such as ``bash``.
        text: what is between the fences.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Page and line of the fence."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that the block is, which the comments at its beginning name; None if they name none."""
        for line in self.text.splitlines():
            if not line.startswith("#"):
                return None
            if found := re.fullmatch(r"# ([\w./-]+\.\w+)", line):
                return found[1]
        return None

    @property
    def is_shown(self) -> bool:
        """Whether it is a drawing, an output or a directive of Sphinx: nothing to execute."""
        return self.language in SHOWN or self.language.startswith("{")

    def texts(self) -> list[str]:
        """The texts that the code of a Python block has as values, doc strings aside."""
        tree = ast.parse(self.text)
        said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        values = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in said]
        return [node.value for node in values if isinstance(node.value, str)]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    return [
        Block(
            name,
            text.count("\n", 0, found.start()) + 1,
            found["language"].strip(),
            textwrap.dedent(found["text"]),
        )
        for found in _FENCED.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def the_block(language: str, *said: str) -> Block:
    """The one block of a language that has some texts, wherever it is."""
    (found,) = (
        block for block in BLOCKS if block.language == language and all(t in block.text for t in said)
    )
    return found
