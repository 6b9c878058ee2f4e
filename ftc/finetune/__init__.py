"""Fine-tuning: the Lightning module, its optimiser and its schedule."""

from ftc.finetune.module import FineTuneModule
from ftc.finetune.optim import build_optimizer, build_scheduler

__all__ = ["FineTuneModule", "build_optimizer", "build_scheduler"]
