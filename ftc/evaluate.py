"""``python -m ftc.evaluate``: evaluate a checkpoint on seen and absent classes, without training."""

from __future__ import annotations

from ftc.cli.launch import launch


def main() -> None:
    """Entry point."""
    launch("evaluate")


if __name__ == "__main__":
    main()
