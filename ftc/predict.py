"""``python -m ftc.predict``: the answers of a deployed model to images, row by row."""

from __future__ import annotations

from ftc.cli.launch import launch


def main() -> None:
    """Entry point."""
    launch("predict")


if __name__ == "__main__":
    main()
