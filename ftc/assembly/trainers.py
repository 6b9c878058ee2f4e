"""Lightning trainers of a run, and the callbacks that every training uses."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import EMAWeightAveraging, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console

from ftc.callbacks import (
    Checkpointing,
    LeaveSignalsAlone,
    SeedSteps,
    StopWhenDiverged,
    WholeCheckpointIO,
    progress,
)
from ftc.config.commands import TrainConfig
from ftc.config.training import TrainerConfig
from ftc.errors import InputError

# Torch 2.6 cannot: its streams of a CPU record no events, which sharding waits for.
SHARDS_ON_CPUS = hasattr(torch.cpu.Stream, "record_event")

warnings.filterwarnings("ignore", message="The '.*dataloader' does not have many workers")
warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging")
# The callback logs numbers computed from states gathered over all ranks: they are equal everywhere already.
warnings.filterwarnings("ignore", message="It is recommended to use `self.log\\('(val|test)/.*sync_dist=True")
warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no `val_dataloader`")
# A method that freezes the backbone keeps it in eval mode on purpose.
warnings.filterwarnings("ignore", message="Found .* module\\(s\\) in eval mode at the start of training")
warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)` is deprecated")


@frozen(eq=False)
class Trainers:
    """A factory of the run's trainers, all for the same hardware.

    Attributes:
        config: the trainer group.
        world_size: the number of processes of the run.
        device: this process's device.
        leads: whether this process shows progress.
        out: console to show it on.
    """

    config: TrainerConfig
    world_size: int
    device: torch.device
    leads: bool
    out: Console

    def whole(self, callbacks: Sequence[Callback], loggers: list[Logger], folder: Path) -> Trainer:
        """The run's own trainer, over all its processes."""
        return build_trainer(
            self.config,
            [*self._progress("fine-tuning"), *callbacks],
            logger=loggers or False,
            default_root_dir=folder,
            log_every_n_steps=10,
        )

    def quiet(self, stage: str, *callbacks: Callback) -> Trainer:
        """A trainer over all processes that neither logs nor saves; bars carry the stage's name."""
        return build_trainer(
            self.config, [*self._progress(stage), *callbacks], logger=False, enable_checkpointing=False
        )

    def single(self, stage: str, *callbacks: Callback, **arguments: Any) -> Trainer:
        """A trainer for this process alone, for results that the other processes take from the cache.

        It joins no process group, and uses the device that this process has in the run itself.
        """
        return build_trainer(
            self.config,
            [*self._progress(stage), *callbacks],
            devices=1 if self.device.type == "cpu" else [self.device.index],
            num_nodes=1,
            strategy="auto",
            logger=False,
            enable_checkpointing=any(isinstance(callback, Checkpointing) for callback in callbacks),
            **arguments,
        )

    def _progress(self, stage: str) -> list[Callback]:
        if (self.config.model_extra or {}).get("enable_progress_bar") is False:
            return []
        # Under a trainer of one process Lightning takes each process for rank 0.
        return [progress(stage, self.leads, self.out)]


def training_callbacks(config: TrainConfig, seed: int, checkpoint: Path) -> list[Callback]:
    """Callbacks that every training uses.

    Args:
        config: the job's configuration.
        seed: seed of the training.
        checkpoint: the file from which an interrupted training goes on.
    """
    return [StopWhenDiverged(), SeedSteps(seed), Checkpointing(checkpoint, config.checkpoint_minutes)]


def averaging_callbacks(config: TrainConfig) -> list[Callback]:
    """The callback that keeps and evaluates a moving average of the weights, if ``config.ema`` is given.

    It must be the last callback, since it takes the averaged weights away when an evaluation ends.
    """
    return [] if config.ema is None else [EMAWeightAveraging(decay=config.ema)]


def build_trainer(config: TrainerConfig, callbacks: Sequence[Callback], **arguments: Any) -> Trainer:
    """Build Lightning's trainer; ``arguments`` override the configuration.

    Raises:
        InputError: an argument that the trainer does not take, or missing hardware.
    """
    merged = {
        "num_sanity_val_steps": 0,
        # Our samplers shard themselves: Lightning's would pad evaluation shards.
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
        "plugins": [WholeCheckpointIO()],
        **config.model_dump(),
        **arguments,
    }
    if merged["strategy"] == "fsdp":
        # Lightning's own strategy of this name is the older FSDP, for GPUs only. Checkpoints are one file.
        merged["strategy"] = ModelParallelStrategy(save_distributed_checkpoint=False)
    try:
        trainer = Trainer(callbacks=[LeaveSignalsAlone(), *callbacks], **merged)
    except (ImportError, TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise InputError(f"trainer: {' '.join(str(error).split())}") from error
    if config.strategy == "fsdp" and isinstance(trainer.accelerator, CPUAccelerator) and not SHARDS_ON_CPUS:
        raise InputError(
            f"trainer.strategy=fsdp: torch {torch.__version__} shards on GPUs only; take a newer one"
        )
    _refuse_half_a_run(trainer, config)
    return trainer


def _refuse_half_a_run(trainer: Trainer, config: TrainerConfig) -> None:
    """Refuse options that leave out what a run reports.

    Raises:
        InputError: no batch to train on, to validate or to test, or Lightning's own order of the images.
    """
    given = config.model_extra or {}
    for key in ("limit_train_batches", "limit_val_batches", "limit_test_batches", "max_steps"):
        if key in given and getattr(trainer, key) == 0:
            raise InputError(f"trainer.{key}={given[key]}: a run trains, validates and tests; leave it some")
    for key in ("overfit_batches", "fast_dev_run"):
        if given.get(key):
            raise InputError(
                f"trainer.{key}={given[key]}: trains on images in Lightning's own order and evaluates few of "
                "them; for a short run set trainer.max_epochs=1 data.iterations_per_epoch=2"
            )
