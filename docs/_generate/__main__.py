"""Write the generated pages: ``python -m docs._generate``."""

from __future__ import annotations

from pathlib import Path

from docs._generate import configuration, errors, results

DOCS = Path(__file__).parents[1]


def pages() -> dict[str, str]:
    """The generated files by their path below ``docs/``."""
    written = {module.PAGE: module.page() for module in (configuration, errors, results)}
    return written | {results.SCHEMA: results.written()}


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
