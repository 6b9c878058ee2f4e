"""The source model: trained once on the source domain or loaded, and then taken from the cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from lightning.pytorch import seed_everything
from rich.console import Console
from torch import Tensor

from ftc.assembly.components import build_module, build_source_datamodule, check_steps
from ftc.assembly.images import Images
from ftc.assembly.trainers import Trainers, training_callbacks
from ftc.callbacks import PredictionRecorder, fit
from ftc.config.commands import TrainConfig
from ftc.data import PartitionedDataModule, hold_out
from ftc.errors import InputError
from ftc.files import digest, file_digest
from ftc.functional import class_means, imprinted_columns, partition_accuracy
from ftc.models import Classifier, cached_tensors, load_checkpoint, load_tensors, load_weights
from ftc.results import OwnDomain, versions
from ftc.runs.processes import all_or_none
from ftc.runs.stages import Stages


@frozen(eq=False)
class SourceStage:
    """Give a classifier the source model's weights. Nothing is trained before `run`.

    Attributes:
        config: the job's configuration.
        images: the run's images; those of the source domain are trained on.
        classifier: trained or loaded in place.
        trainers: the factory of trainers.
        out: console for messages.
    """

    config: TrainConfig
    images: Images
    classifier: Classifier
    trainers: Trainers
    out: Console

    def run(self, stages: Stages) -> Path:
        """Train or load the source model, or find it in the cache.

        The weights always come from the file, so that a cached source model changes nothing after it.

        Returns:
            The file of the source model's weights.
        """
        config = self.config
        with stages.timed("source"), all_or_none():
            cache = config.cache("source")
            file, fresh = cached_tensors(self._identity, cache, self._weights, self.out.print)
            load_weights(file, self.classifier)
        verb = "cached, loaded" if not fresh else "trained" if config.trains_source else "loaded"
        self.out.print(f"Source model {verb} in {stages.timing['source']:.1f} s: {file}")
        return file

    def own_domain(self) -> OwnDomain | None:
        """Measure the source model on the source images that were held out of its training, and print it.

        The classifier must have the source model's weights. What was measured before comes from the cache.

        Returns:
            None where no source image is known to be new to the source model.
        """
        config = self.config
        if self.images.readers["source"] is None:
            return None
        if not config.trains_source or not self._held_out.any():
            kept = f"source.holdout={config.source.holdout:g} holds none of its images out"
            why = kept if config.trains_source else "source.checkpoint may have been trained on its images"
            self.out.print(f"How well it knows its own domain is not measured: {why}")
            return None
        identity = {"measured": self._identity, "average": config.calibration.average}
        with all_or_none():
            file, _ = cached_tensors(identity, config.cache("own_domain"), self._measured, self.out.print)
        found = load_tensors(file)
        own = OwnDomain(acc_all=float(found["acc_all"]), num_samples=int(found["num_samples"]))
        self.out.print(str(own))
        return own

    def with_new_columns(self, weights: Path, data: PartitionedDataModule, new: Sequence[int]) -> Path:
        """Begin the head's columns of new classes from their images (docs/definitions.md, "New classes").

        Rows and biases come from features of the seen training images, V left out. Everything else keeps its
        values, and so do columns that names make.

        Args:
            weights: the file of the source model's weights, which the classifier must have.
            data: the target domain's data module.
            new: the new columns, see `ftc.runs.parts.Parts`.

        Returns:
            The file of the weights with them, which the classifier has from now on.
        """
        if not new or self.config.names_make_columns:
            return weights
        config, images = self.config, self.images
        identity = {
            "source": weights.stem,
            "new_columns": list(new),
            "known": images.known,
            "reader": config.data.readers.train,
            "samples": images.samples["train"],
            "seen": data.partition.seen,
            "held_out": digest(images.names("train", data.held_out)),
        }
        with all_or_none():
            file, _ = cached_tensors(
                identity,
                config.cache("source"),
                lambda _: self._imprinted(load_tensors(weights), data, new),
                self.out.print,
            )
            load_weights(file, self.classifier)
        names = ", ".join(images.class_names[column] for column in new)
        self.out.print(f"New columns begin from seen training images: {names}")
        return file

    def _imprinted(
        self, state: dict[str, Tensor], data: PartitionedDataModule, new: Sequence[int]
    ) -> dict[str, Tensor]:
        """The source model's weights with the rows and biases of new columns."""
        seen = self._outputs("new columns", data)
        head = [f"{self.classifier.head_name}.{name}" for name in ("weight", "bias")]
        found = imprinted_columns(
            seen["features"], seen["target"], state[head[0]], state.get(head[1]), new, self.images.known
        )
        for name, values in zip(head, found, strict=True):
            if name in state:
                state[name][list(new)] = values.to(state[name])
        return state

    def _measured(self, checkpoint: Path) -> dict[str, Tensor]:
        data = self._data()
        recorder = PredictionRecorder(("val",))
        module = build_module(self.classifier, self.config.source.optimizer, self.config.source.scheduler)
        trainer = self.trainers.single("source model, own domain", recorder)
        trainer.validate(module, data.held_out_dataloader(), verbose=False)
        latest = recorder.latest["val"]
        average = self.config.calibration.average
        found = partition_accuracy(latest["logits"], latest["target"], data.partition, average=average)
        return {
            "acc_all": torch.tensor(found["acc_all"], dtype=torch.float64),
            "num_samples": torch.tensor(len(latest["target"])),
        }

    def class_means(self) -> Tensor:
        """Class means (C, D) of the source model's features; without source images, its head's weights.

        The classifier must have the source model's weights.
        """
        if self.images.readers["source"] is None:
            return self.classifier.head.weight.detach().cpu()
        found = self._outputs("class means", self._data())
        return class_means(found["features"], found["target"], len(self.images.class_names))

    def _outputs(self, stage: str, data: PartitionedDataModule) -> dict[str, Tensor]:
        """The classifier's outputs for the images of a data module that are trained on, by field."""
        recorder = PredictionRecorder(("calibration",))
        module = build_module(self.classifier, self.config.source.optimizer, self.config.source.scheduler)
        loader = data.calibration_dataloader()
        self.trainers.single(stage, recorder).validate(module, loader, verbose=False)
        return recorder.latest["calibration"]

    def _weights(self, checkpoint: Path) -> dict[str, Tensor]:
        """The source model's weights; an interrupted training goes on from ``checkpoint``."""
        config, classifier = self.config, self.classifier
        if config.source.checkpoint is not None:
            load_named(
                Path(config.source.checkpoint),
                classifier,
                self.images,
                config.source.strict,
                self.out,
                columns=self.images.given,
            )
        elif config.trains_source:
            seed_everything(config.source.seed, workers=True, verbose=False)
            data = self._data()
            check_steps(config, classifier, data, world_size=1)  # one process trains it
            module = build_module(classifier, config.source.optimizer, config.source.scheduler)
            self.out.print(
                f"Training the source model: {config.source.max_epochs} epochs, "
                f"{data.num_trained:,} images of {len(data.partition.seen)} classes"
            )
            trainer = self.trainers.single(
                "source model",
                *training_callbacks(config, config.source.seed, checkpoint),
                max_epochs=config.source.max_epochs,
                limit_val_batches=0,
            )
            with module.prepared(data):
                fit(trainer, module, data)
        return classifier.timm_state_dict()

    @cached_property
    def _held_out(self) -> Tensor:
        """The source images that it is measured on instead of trained on, bool (N,)."""
        reader, columns = self.images.readers["source"], self.images.columns("source")
        assert reader is not None
        share = self.config.source.holdout if self.config.trains_source else 0.0
        return hold_out(reader.targets, columns, share, self.images.groups["source"])

    def _data(self) -> PartitionedDataModule:
        return build_source_datamodule(self.config, self.images, self.classifier, self._held_out)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """Everything that the source model depends on, as JSON types."""
        config = self.config
        trained_on = None
        if config.trains_source:
            trained_on = {
                **config.data.model_dump(include={"source_augmentation", "batch_size", "cache"}),
                "reader": config.data.readers.source,
                "samples": self.images.samples.get("source"),
                "held_out": digest(self.images.names("source", self._held_out)),
            }
        return {
            "model": config.model.identity(),
            "class_names": self.images.class_names,
            "given": self.images.given,
            "data": trained_on,
            "checkpoint": file_digest(config.source.checkpoint),
            "source": config.source.model_dump(exclude={"checkpoint", "holdout"}),
            "trainer": config.trainer.recipe(),
            "execution": config.execution(),
            "versions": versions(),
        }


def load_named(
    path: Path,
    classifier: Classifier,
    images: Images,
    strict: bool,
    out: Console,
    any_head: bool = False,
    columns: int | None = None,
) -> None:
    """Load a checkpoint of any known format, and print which weights it lacks or has too many.

    The classes of its head must be the first ``columns`` of the data's, all by default, unless ``any_head``
    says that the head is trained anyway.

    Raises:
        InputError: the file is no checkpoint, or has weights of another model or classes in another order.
    """
    report = load_checkpoint(path, classifier, strict, any_head, columns)
    names = report.metadata.get("class_names")
    expected = range(len(images.head) if columns is None else columns)
    if not any_head and names is not None and list(map(images.head.column, names)) != list(expected):
        raise InputError(
            f"{path}: its head's columns are {', '.join(names[:5])}, …, the data's "
            f"{', '.join(images.class_names[:5])}, …; give the same data.columns"
        )
    out.print(str(report))
