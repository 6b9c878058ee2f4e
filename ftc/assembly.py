"""From configuration to objects. Beyond this module and `ftc.run` nothing sees the configuration."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from ftc.config import DataConfig, OptimizerConfig, SchedulerConfig, TrainConfig, TrainerConfig
from ftc.data import PartitionedDataModule, build_transforms
from ftc.errors import InputError
from ftc.finetune import FineTuneModule, build_optimizer, build_scheduler
from ftc.instantiate import make
from ftc.models import Classifier
from ftc.partition import ClassPartition

warnings.filterwarnings("ignore", message="The '.*dataloader' does not have many workers")
warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging")
# What the callback logs is computed from states gathered over all ranks: equal everywhere already.
warnings.filterwarnings("ignore", message="It is recommended to use `self.log\\('(val|test)/.*sync_dist=True")
warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no `val_dataloader`")
warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)` is deprecated")


def build_datamodule(
    data: DataConfig, classifier: Classifier, partition: ClassPartition, seed: int
) -> PartitionedDataModule:
    """The target domain's data module."""
    return PartitionedDataModule(
        train=make("data.train", data.train),
        val=None if data.val is None else make("data.val", data.val),
        test=make("data.test", data.test),
        pool=None if data.pool is None else make("data.pool", data.pool),
        holdout=data.holdout,
        gallery=data.gallery,
        partition=partition,
        **_loading(data, classifier, seed, "augmentation"),
    )


def build_source_datamodule(data: DataConfig, classifier: Classifier, seed: int) -> PartitionedDataModule:
    """The source domain's data module: all of its classes are trained on."""
    assert data.source is not None
    reader = make("data.source", data.source)
    present = reader.targets.unique().tolist()
    partition = ClassPartition(data.num_classes, seen=present)
    loading = {**_loading(data, classifier, seed, "source_augmentation"), "iterations_per_epoch": None}
    return PartitionedDataModule(train=reader, partition=partition, **loading)


def _loading(data: DataConfig, classifier: Classifier, seed: int, key: str) -> dict[str, Any]:
    augmentation = [make(f"data.{key}[{i}]", node) for i, node in enumerate(getattr(data, key))]
    train_transform, eval_transform = build_transforms(classifier.data_config, augmentation)
    return {
        "train_transform": train_transform,
        "eval_transform": eval_transform,
        "batch_size": data.batch_size,
        "eval_batch_size": data.eval_batch_size,
        "iterations_per_epoch": data.iterations_per_epoch,
        "num_workers": data.num_workers,
        "seed": seed,
    }


def build_module(
    classifier: Classifier,
    optimizer: OptimizerConfig,
    scheduler: SchedulerConfig,
    without: Sequence[int] = (),
) -> FineTuneModule:
    """The module that trains a classifier, some head columns left out of the loss.

    Raises:
        InputError: an optimiser or schedule that timm does not have, before any training.
    """
    module = FineTuneModule(
        classifier,
        partial(build_optimizer, **optimizer.model_dump()),
        partial(build_scheduler, **scheduler.model_dump()),
        without,
    )
    build_scheduler(module.optimizer_factory(classifier), 1, **scheduler.model_dump())
    return module


def build_trainer(config: TrainerConfig, callbacks: Sequence[Callback], **arguments: Any) -> Trainer:
    """Lightning's trainer; ``arguments`` win over the configuration.

    Raises:
        InputError: an argument that the trainer does not take, or hardware that is not there.
    """
    merged = {
        "num_sanity_val_steps": 0,
        # Our samplers shard themselves: Lightning's would pad evaluation shards.
        "use_distributed_sampler": False,
        "enable_model_summary": False,
        **config.model_dump(),
        **arguments,
    }
    try:
        return Trainer(callbacks=list(callbacks), **merged)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"trainer: {' '.join(str(error).split())}") from error


def logger_factories(config: TrainConfig) -> list[Callable[[], Logger]]:
    """What makes the run's loggers, once its folder exists.

    Raises:
        InputError: a target that does not exist or does not take its arguments.
    """
    factories = []
    for name, node in (config.logger or {}).items():
        factory = make(f"logger.{name}", {**node, "_partial_": True})
        try:
            inspect.signature(factory).bind()
        except (TypeError, ValueError) as error:
            reason = f"does not take these arguments ({error})"
            raise InputError(f"logger.{name}={node['_target_']}: {reason}") from error
        factories.append(factory)
    return factories
