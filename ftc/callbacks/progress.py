"""What a user sees of a training: a bar in a terminal, elsewhere a line an epoch."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console
from rich.progress import ProgressColumn, TextColumn


def progress(stage: str, leads: bool, out: Console) -> Callback:
    """The callback that shows the progress of a stage.

    Args:
        stage: the stage's name.
        leads: whether this process shows anything.
        out: console for lines; bars are drawn where it is a terminal.
    """
    if leads and not out.file.isatty():
        return EpochLines(stage, out)
    return StageBar(stage, shown=leads)


def name_stage(trainer: Trainer, stage: str) -> None:
    """Give another name to what a trainer shows next."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, (StageBar, EpochLines)):
            callback.stage = stage


class StageBar(RichProgressBar):
    """Lightning's bar, with the stage's name in front.

    Args:
        stage: the name.
        shown: whether there is a bar.
    """

    def __init__(self, stage: str, shown: bool) -> None:
        # Ending a bar takes up to one refresh, of which there are 20 a second.
        super().__init__(leave=False, refresh_rate=20 * shown)
        self.stage = stage

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        columns: list[ProgressColumn] = [TextColumn(f"{self.stage}:", markup=False)]
        return [*columns, *super().configure_columns(trainer)]


class EpochLines(Callback):
    """Prints a line after every epoch of a training: how many there are, and how long they take.

    Args:
        stage: the stage's name.
        out: console for the lines.
    """

    def __init__(self, stage: str, out: Console) -> None:
        self.stage = stage
        self.out = out
        self._first = 0
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first, self._started = trainer.current_epoch, time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        done = trainer.current_epoch + 1
        each = (time.monotonic() - self._started) / (done - self._first)
        line = f"{self.stage}: epoch {done}"
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            left = (trainer.max_epochs - done) * each
            line += f" of {trainer.max_epochs}, {each:.1f} s each, {left:.0f} s left"
        self.out.print(line)
