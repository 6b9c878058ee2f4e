"""Lightning callbacks: calibration at every validation, recorded outputs, checkpoints, seeds, divergence."""

from ftc.callbacks.calibration import CalibrationCallback
from ftc.callbacks.checkpointing import Checkpointing, LeaveSignalsAlone, WholeCheckpointIO, fit
from ftc.callbacks.divergence import StopWhenDiverged
from ftc.callbacks.progress import name_stage, progress
from ftc.callbacks.recorder import PredictionRecorder
from ftc.callbacks.seeding import SeedSteps

__all__ = [
    "CalibrationCallback",
    "Checkpointing",
    "LeaveSignalsAlone",
    "PredictionRecorder",
    "SeedSteps",
    "StopWhenDiverged",
    "WholeCheckpointIO",
    "fit",
    "name_stage",
    "progress",
]
