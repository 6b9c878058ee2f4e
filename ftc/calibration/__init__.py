"""Calibration inside a Lightning run."""

from ftc.calibration.callback import CalibrationCallback
from ftc.calibration.evaluation import CalibratedAccuracies, Evaluation
from ftc.calibration.recorder import PredictionRecorder

__all__ = ["CalibratedAccuracies", "CalibrationCallback", "Evaluation", "PredictionRecorder"]
