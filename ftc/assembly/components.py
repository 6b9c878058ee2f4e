"""From configuration to objects. Beyond this module and the jobs nothing sees the configuration."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ftc.assembly.instantiate import make
from ftc.callbacks.checkpointing import WholeCheckpointIO
from ftc.config.commands import OptimizerConfig, SchedulerConfig, TrainConfig, TrainerConfig
from ftc.config.data import ClipModelConfig, DataConfig, TimmModelConfig
from ftc.data import (
    ImageCache,
    PartitionedDataModule,
    Preprocessing,
    Reader,
    check_images,
    columns_of,
    select,
)
from ftc.data.readers import sample_name
from ftc.errors import InputError
from ftc.finetune import FineTuneModule, build_optimizer, build_scheduler
from ftc.models import Classifier, create_classifier, create_clip_classifier, label_names
from ftc.partition import ClassPartition, digest_samples

warnings.filterwarnings("ignore", message="The '.*dataloader' does not have many workers")
warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging")
# What the callback logs is computed from states gathered over all ranks: equal everywhere already.
warnings.filterwarnings("ignore", message="It is recommended to use `self.log\\('(val|test)/.*sync_dist=True")
warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no `val_dataloader`")
warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)` is deprecated")


@frozen(eq=False)
class Images:
    """Every image of a run, labelled by head column and known to be readable.

    Attributes:
        readers: ``source``, ``train``, ``val``, ``test``, ``pool``; None where there is none.
        class_names: one a head column.
        skipped: how many samples were left out on request, by reader.
        samples: count and digest of every reader's list of samples and labels, as in a manifest.
    """

    readers: Mapping[str, Reader | None]
    class_names: tuple[str, ...]
    skipped: Mapping[str, int]
    samples: Mapping[str, dict[str, Any]]

    def columns(self, split: str) -> tuple[int, ...]:
        """Head columns that a split has images of."""
        reader = self.readers[split]
        return () if reader is None else tuple(reader.targets.unique().tolist())


def build_images(data: DataConfig, model: TimmModelConfig | ClipModelConfig) -> Images:
    """All readers, their labels mapped to head columns, their files checked.

    Args:
        data: names the readers.
        model: whose own class names ``data.columns=model`` means.

    Raises:
        InputError: a reader that cannot be built, classes without a column, images that cannot be read.
    """
    nodes = data.readers.model_dump()
    raw = {key: None if node is None else make(f"data.readers.{key}", node) for key, node in nodes.items()}
    labelled = {key: reader for key, reader in raw.items() if reader is not None and key != "pool"}
    columns = columns_of(data.columns, list(labelled.values()), lambda: _own_names(model))
    if data.num_classes not in (None, len(columns)):
        whose = "the data name" if data.columns is None else f"data.columns={data.columns} names"
        raise InputError(
            f"data.num_classes={data.num_classes}: {whose} {len(columns)} classes; correct one of the two"
        )
    readers: dict[str, Reader | None] = dict(raw)
    for key, reader in labelled.items():
        readers[key] = columns.of(key, reader, data.unmapped)
    present = {key: reader for key, reader in readers.items() if reader is not None}
    kept = check_images(present, data.on_error, cache_folder(data), data.num_workers)
    skipped = {}
    for key, reader in present.items():
        readers[key] = select(reader, kept[key])
        original: Any = raw[key]
        skipped[key] = len(getattr(original, "skipped", ())) + len(original.targets) - len(kept[key])
    samples = {key: _digest(reader) for key, reader in readers.items() if reader is not None}
    return Images(readers, columns.names, {key: n for key, n in skipped.items() if n}, samples)


def _digest(reader: Reader) -> dict[str, Any]:
    # The unlabelled pool has no class names, and no labels either.
    names = reader.class_names or ("",)
    lines = [f"{sample_name(reader, i)}\t{names[max(t, 0)]}" for i, t in enumerate(reader.targets.tolist())]
    return {"count": len(lines), "sha256": digest_samples(lines)}


def _own_names(model: TimmModelConfig | ClipModelConfig) -> tuple[str, ...] | None:
    return label_names(model.name, model.kwargs) if isinstance(model, TimmModelConfig) else None


def cache_folder(data: DataConfig) -> Path | None:
    """Where decoded images and verdicts on files are kept; None for the user's cache folder."""
    return None if data.cache_dir is None else Path(data.cache_dir)


def build_classifier(
    model: TimmModelConfig | ClipModelConfig, class_names: Sequence[str], pretrained: bool
) -> Classifier:
    """The backbone with a head of one column a class.

    Args:
        model: its configuration.
        class_names: one a column; CLIP's head is made from them.
        pretrained: False where weights are loaded over it anyway.

    Raises:
        InputError: no such model, or weights that cannot be had.
    """
    if isinstance(model, ClipModelConfig):
        words = [model.words.get(name, name) for name in class_names]
        return create_clip_classifier(model.name, model.pretrained, words, model.templates, pretrained)
    return create_classifier(model.name, len(class_names), model.pretrained and pretrained, model.kwargs)


def build_datamodule(
    data: DataConfig, images: Images, classifier: Classifier, partition: ClassPartition, seed: int
) -> PartitionedDataModule:
    """The target domain's data module."""
    train = images.readers["train"]
    assert train is not None
    return PartitionedDataModule(
        train=train,
        val=images.readers["val"],
        test=images.readers["test"],
        pool=images.readers["pool"],
        holdout=data.holdout,
        gallery=data.gallery,
        partition=partition,
        iterations_per_epoch=data.iterations_per_epoch,
        **_loading(data, classifier, seed, "augmentation"),
    )


def build_source_datamodule(
    data: DataConfig, images: Images, classifier: Classifier, iterations: int | None, seed: int
) -> PartitionedDataModule:
    """The source domain's data module: all of its classes are trained on."""
    source = images.readers["source"]
    assert source is not None
    partition = ClassPartition(len(images.class_names), seen=images.columns("source"))
    loading = _loading(data, classifier, seed, "source_augmentation")
    return PartitionedDataModule(
        train=source, partition=partition, iterations_per_epoch=iterations, **loading
    )


def _loading(data: DataConfig, classifier: Classifier, seed: int, key: str) -> dict[str, Any]:
    augmentation = [make(f"data.{key}[{i}]", node) for i, node in enumerate(getattr(data, key))]
    return {
        "preprocessing": Preprocessing(classifier.data_config, augmentation),
        "cache": ImageCache(cache_folder(data)) if data.cache else None,
        "batch_size": data.batch_size,
        "eval_batch_size": data.eval_batch_size,
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
        "plugins": [WholeCheckpointIO()],
        **config.model_dump(),
        **arguments,
    }
    if merged["strategy"] == "fsdp":
        # Lightning's own strategy of this name is the older FSDP, for GPUs only. Checkpoints are one file.
        merged["strategy"] = ModelParallelStrategy(save_distributed_checkpoint=False)
    try:
        return Trainer(callbacks=list(callbacks), **merged)
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
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
