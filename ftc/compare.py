"""``python -m ftc.compare``: estimators of γ over the runs of a sweep, as Markdown tables."""

from __future__ import annotations

from typing import Any

from ftc.cli.launch import launch
from ftc.config.commands import CompareConfig


def main() -> None:
    """Entry point."""
    launch("compare", compare)


def compare(config: CompareConfig) -> dict[str, Any]:
    """Print the report."""
    # torch takes seconds to import; wrong input is answered before.
    from ftc.runs.compare import compare as sections

    for section in sections(config):
        print(section)
    return {}


if __name__ == "__main__":
    main()
