"""``python -m ftc.train``: source model, fine-tuning, calibration, report."""

from __future__ import annotations

from typing import Any

from ftc.cli import launch
from ftc.config import TrainConfig


def main() -> None:
    """Entry point."""
    launch("train", train)


def train(config: TrainConfig) -> dict[str, Any]:
    """Run one job and print its table; returns the scalars for a sweep's table."""
    # torch takes seconds to import; wrong input is answered before.
    from ftc.run import run_experiment

    return run_experiment(config)


if __name__ == "__main__":
    main()
