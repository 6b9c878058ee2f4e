"""``python -m ftc.train``: source model, fine-tuning, calibration, report."""

from __future__ import annotations

import logging
from typing import Any

from ftc.cli.launch import launch
from ftc.config.commands import TrainConfig


def main() -> None:
    """Entry point."""
    launch("train", train)


def train(config: TrainConfig) -> dict[str, Any]:
    """Run one job and print its table; returns the scalars for a sweep's table."""
    # Matplotlib talks while it is imported; Lightning sets its own level then.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    # torch takes seconds to import; wrong input is answered before.
    from ftc.runs.train import run_experiment

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return run_experiment(config)


if __name__ == "__main__":
    main()
