"""``python -m ftc.report RUN_OR_SWEEP…``: tables, figures and a page of finished runs."""

from __future__ import annotations

from ftc.cli.launch import launch


def main() -> None:
    """Entry point."""
    launch("report")


if __name__ == "__main__":
    main()
