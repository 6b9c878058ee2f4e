"""A callback that lets seed, epoch, step and rank alone determine a training step's random numbers."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ftc.data.randomness import mixed


class SeedSteps(Callback):
    """Seeds torch before every training step, so that checkpoints need no generator state for dropout.

    Neither evaluations nor loaders between two steps change the random numbers of the next one.

    Args:
        seed: together with epoch, step and rank it determines the draws.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        seed = mixed(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        # torch.manual_seed writes a stack trace for each kind of device that is not there.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device).manual_seed(seed)
