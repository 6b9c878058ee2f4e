"""Training: the module, its optimiser and schedule, the cached source model."""

from ftc.finetune.checkpointing import Checkpointing, WholeCheckpointIO, fit
from ftc.finetune.divergence import StopWhenDiverged
from ftc.finetune.module import FineTuneModule
from ftc.finetune.optim import build_optimizer, build_scheduler
from ftc.finetune.randomness import SeedSteps
from ftc.finetune.source import prepare_source

__all__ = [
    "Checkpointing",
    "FineTuneModule",
    "SeedSteps",
    "StopWhenDiverged",
    "WholeCheckpointIO",
    "build_optimizer",
    "build_scheduler",
    "fit",
    "prepare_source",
]
