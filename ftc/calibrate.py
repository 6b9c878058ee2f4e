"""``python -m ftc.calibrate``: γ and its effect from saved logits of any framework."""

from __future__ import annotations

import logging
from typing import Any

from ftc.cli.launch import launch
from ftc.config.commands import CalibrateConfig


def main() -> None:
    """Entry point."""
    launch("calibrate", calibrate)


def calibrate(config: CalibrateConfig) -> dict[str, Any]:
    """Run one job and print its table; returns the scalars for a sweep's table."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    # torch takes seconds to import; wrong input is answered before.
    from ftc.evaluation.saved_logits import run_calibration

    return run_calibration(config)


if __name__ == "__main__":
    main()
