"""A single checkpoint, from which an interrupted training goes on."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from ftc.files import DamagedError, damage, written_whole

# Signals that come before a process is killed: from whoever stops it, SLURM (sbatch --signal) or submitit.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

# Steps between two agreements of the ranks on an unscheduled checkpoint; each costs a synchronisation.
_STEPS_TO_AGREE = 10


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, and reads nothing but tensors and plain values from them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with written_whole(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        with damage(path):
            return torch.load(path, map_location="cpu", weights_only=True)


class Checkpointing(Checkpoint):
    """Keeps one checkpoint: after every validation, every few minutes between, and when told to stop.

    No model is selected: the released recipe takes the last epoch (docs/definitions.md, "Benchmarks and
    recipe"). On Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2 the training goes on to the end of the step (or of a
    running validation), saves, and calls the handler that the signal had before, such as submitit's. Without
    such a handler it ends with status 128 + signal. Before that it asks SLURM to requeue the job, if SLURM
    warned of its time limit (``sbatch --signal=USR1@120``); SLURM itself requeues a job that it pre-empts
    with SIGTERM.

    Nothing is saved between the last step of an epoch and its validation, since Lightning would go on from
    there without the validation.

    Args:
        path: the checkpoint's file.
        minutes: minutes between two checkpoints without a validation between them.

    Attributes:
        seconds: duration of the training (s), interrupted parts included.
    """

    def __init__(self, path: Path, minutes: float = 10.0) -> None:
        self.path = Path(path)
        self.minutes = minutes
        self.seconds = 0.0
        self._since = self._saved = time.monotonic()
        self._received: int | None = None
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The duration of the training so far (s)."""
        return {"seconds": self.seconds + time.monotonic() - self._since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._since = self._saved = time.monotonic()
            # The handlers before Lightning adds its own, which on_train_start replaces. Lightning restores
            # these in the end.
            self._handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._received = None
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        before = self._handlers.get(number)
        if self._received == signal.SIGINT == number and callable(before):
            before(number, frame)  # whoever presses Ctrl-C twice does not want to wait
        self._received = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # A checkpoint lacks gradients that are still being accumulated.
        if trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        due = self._received is not None or time.monotonic() - self._saved > 60 * self.minutes
        if trainer.world_size > 1:
            agreeing = trainer.global_step % _STEPS_TO_AGREE == 0
            due = agreeing and trainer.strategy.reduce_boolean_decision(due, all=False)
        if due:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last = trainer.max_epochs is not None and trainer.current_epoch + 1 >= trainer.max_epochs
        if trainer.state.fn == "fit" and not last:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        every = trainer.check_val_every_n_epoch
        validated = trainer.enable_validation and (every is None or (trainer.current_epoch + 1) % every == 0)
        if not validated:
            # Save after the next step: loggers get the values of the epoch's end only then.
            self._saved = -math.inf

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)
        self.seconds += time.monotonic() - self._since

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved = time.monotonic()
        stopping = self._received is not None
        if trainer.world_size > 1:
            stopping = trainer.strategy.reduce_boolean_decision(stopping, all=False)
        if stopping:
            self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        number = signal.SIGTERM if self._received is None else self._received
        self._received = None
        before: Callable[[int, Any], Any] | Any = self._handlers.get(number)
        if callable(before) and before is not signal.default_int_handler:
            before(number, None)
            return
        name = signal.Signals(number).name
        if trainer.is_global_zero:
            print(f"ftc: {name}: saved {self.path}; the same command goes on from there", file=sys.stderr)
            if number in (signal.SIGUSR1, signal.SIGUSR2):
                _requeue()
        raise SystemExit(128 + number)


class LeaveSignalsAlone(Callback):
    """Outside a training, lets signals do what they did before Lightning took them.

    Lightning notes a SIGTERM and goes on; only a training looks at the note.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Called before Lightning sets its own handlers.
        self._handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore(trainer)

    def _restore(self, trainer: Trainer) -> None:
        if trainer.state.fn != "fit" and threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if handler is not None:  # one that was not set by Python cannot be set again
                    signal.signal(number, handler)


def fit(trainer: Trainer, module: LightningModule, data: LightningDataModule) -> Checkpointing:
    """Train, or go on from the checkpoint of the trainer's `Checkpointing`, which is returned.

    A checkpoint of a finished training only restores its weights and the states of callbacks. One that cannot
    be read is told of, and training begins anew.
    """
    checkpointing = trainer.checkpoint_callback
    assert isinstance(checkpointing, Checkpointing)
    path = checkpointing.path
    known = path.is_file()
    try:
        if known:
            _check(path)
    except DamagedError:
        known = False
        if trainer.is_global_zero:
            print(f"{path}: is damaged; this training begins anew")
    trainer.fit(module, datamodule=data, ckpt_path=path if known else None)
    return checkpointing


def _check(path: Path) -> None:
    """Check that a file is a whole checkpoint of Lightning's; torch looks at no checksum.

    Raises:
        DamagedError: the file is not what `WholeCheckpointIO` wrote.
    """
    with damage(path):
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise ValueError("a part has another checksum")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        content["state_dict"], content["loops"], content["optimizer_states"], content["callbacks"]


def _requeue() -> None:
    """Ask SLURM to run the job again, if this is a job of SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = os.environ.get("SLURM_JOB_ID") if array is None else f"{array}_{task}"
    if job is not None and re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        subprocess.run(["scontrol", "requeue", job], check=False)
