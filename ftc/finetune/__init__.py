"""Fine-tuning: methods, the Lightning module that trains by one, optimisers and schedules."""

from ftc.finetune.methods import Full, LinearProbe, Method, SeenSoftmax
from ftc.finetune.module import FineTuneModule
from ftc.finetune.optim import build_optimizer, build_scheduler

__all__ = [
    "FineTuneModule",
    "Full",
    "LinearProbe",
    "Method",
    "SeenSoftmax",
    "build_optimizer",
    "build_scheduler",
]
