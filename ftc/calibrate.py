"""``python -m ftc.calibrate``: γ and its effect from saved logits of any framework."""

from __future__ import annotations

from ftc.cli.launch import launch


def main() -> None:
    """Entry point."""
    launch("calibrate")


if __name__ == "__main__":
    main()
