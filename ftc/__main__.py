"""``python -m ftc``, installed as ``ftc``: the list of commands, and each of them."""

from __future__ import annotations

from ftc.cli.front import front


def main() -> None:
    """Entry point."""
    front()


if __name__ == "__main__":
    main()
