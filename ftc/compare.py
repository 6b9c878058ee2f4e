"""``python -m ftc.compare``: estimators of γ over the runs of a sweep, as Markdown tables."""

from __future__ import annotations

from ftc.cli.launch import launch


def main() -> None:
    """Entry point."""
    launch("compare")


if __name__ == "__main__":
    main()
