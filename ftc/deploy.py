"""``python -m ftc.deploy``: a finished run's model for production, verified before it is kept."""

from __future__ import annotations

from ftc.cli.launch import launch


def main() -> None:
    """Entry point."""
    launch("deploy")


if __name__ == "__main__":
    main()
