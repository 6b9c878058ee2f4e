"""Calibration inside a Lightning run."""

from ftc.calibration.callback import CalibrationCallback
from ftc.calibration.recorder import PredictionRecorder

__all__ = ["CalibrationCallback", "PredictionRecorder"]
