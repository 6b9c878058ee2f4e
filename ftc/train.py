"""``python -m ftc.train``: source model, fine-tuning, calibration, report."""

from __future__ import annotations

from ftc.cli.launch import launch


def main() -> None:
    """Entry point."""
    launch("train")


if __name__ == "__main__":
    main()
