"""``python -m ftc.evaluate``: a checkpoint on seen and absent classes, without training."""

from __future__ import annotations

import logging
from typing import Any

from ftc.cli.launch import launch
from ftc.config.commands import EvaluateConfig


def main() -> None:
    """Entry point."""
    launch("evaluate", evaluate)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Run one job and print its table; returns the scalars for a sweep's table."""
    # Matplotlib talks while it is imported; Lightning sets its own level then.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    # torch takes seconds to import; wrong input is answered before.
    from ftc.runs.evaluate import evaluate_checkpoint

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return evaluate_checkpoint(config)


if __name__ == "__main__":
    main()
