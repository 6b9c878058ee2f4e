"""A callback that stops diverged training before it overwrites the last good checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ftc.errors import InputError


class StopWhenDiverged(Callback):
    """Stops when a training loss is not a finite number, and says since which iteration.

    Losses are checked on their device. The result is fetched only every ``every`` steps, at the end of every
    epoch, and before every validation and checkpoint.

    Args:
        every: steps between two fetches.

    Raises:
        InputError: a loss is not finite; the message names the iteration and the mend.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = every
        self._iteration = 0
        self._first: Tensor | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"].detach()
        if self._first is None:
            self._first = torch.full((), -1, dtype=torch.int64, device=loss.device)
        bad = (self._first < 0) & ~loss.isfinite()
        self._first = self._first.masked_fill(bad, self._iteration)
        self._iteration += 1
        if self._iteration % self.every == 0:
            self._look(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The number of iterations so far."""
        return {"iteration": self._iteration}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._iteration = state_dict["iteration"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        step = -1 if self._first is None else int(self._first)
        diverged = step >= 0
        if trainer.world_size > 1:
            # One process must not end while the others wait for it.
            diverged = trainer.strategy.reduce_boolean_decision(diverged, all=False)
        if not diverged:
            return
        when = f"from iteration {step} on" if step >= 0 else "in another process"
        rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        clipped = trainer.gradient_clip_val is not None
        clip = "" if clipped else ", or set trainer.gradient_clip_val=1"
        raise InputError(
            f"the training loss is not finite {when} (epoch {trainer.current_epoch}); the "
            f"last good checkpoint stays; choose a smaller optimizer.lr (here {rate:.2g}){clip}"
        )
