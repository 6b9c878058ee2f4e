"""The parts that the stages of a run share, built from the configuration. Building trains nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from rich.console import Console

from ftc.assembly.components import (
    build_classifier,
    build_datamodule,
    build_method,
    check_recipe,
    check_steps,
)
from ftc.assembly.images import Images, build_images
from ftc.assembly.trainers import Trainers, build_trainer
from ftc.calibrators import Calibrator, check_new_classes
from ftc.config.commands import TrainConfig
from ftc.config.partition import PartitionContext
from ftc.data import PartitionedDataModule, batch_share
from ftc.errors import InputError
from ftc.models import Classifier, checksum, load_tensors
from ftc.models.heads import CosineHead
from ftc.partition import ClassPartition, PartitionManifest, without
from ftc.results import versions
from ftc.runs.processes import check_processes, leads
from ftc.runs.source import SourceStage, load_named
from ftc.runs.stages import Stages

# Images of a pool for each class below which a run warns that heads cannot learn from it.
FEW = 3


@frozen(eq=False)
class Parts:
    """The parts of a run.

    Attributes:
        config: the job's configuration, with ``run_dir`` filled in.
        images: every image, by reader.
        classifier: has the source model's weights, then the fine-tuned model's; other weights only inside a
            block of `ftc.models.other_weights`.
        trainers: the factory of trainers.
        calibrators: the calibrators to fit, by name.
        partition: seen, absent and other columns.
        new: seen columns that the source model had not been given before this run.
        data: loaders over the target domain.
        out: console for the run's messages.
    """

    config: TrainConfig
    images: Images
    classifier: Classifier
    trainers: Trainers
    calibrators: Mapping[str, Calibrator[Any]]
    partition: ClassPartition
    new: tuple[int, ...]
    data: PartitionedDataModule
    out: Console

    @property
    def begun_from(self) -> tuple[str, ...]:
        """The data that the new columns begin from, in words; empty where there are none."""
        return ("seen train",) if self.new and not self.config.names_make_columns else ()


def build_source_stage(config: TrainConfig, out: Console, pretrained: bool = True) -> SourceStage:
    """Build images, model and trainers, ready for the source stage.

    Args:
        config: the job's configuration.
        out: console for the run's messages.
        pretrained: False where other weights are loaded over the model's own.

    Raises:
        InputError: an error in the configuration that only building its objects shows.
    """
    # This trainer trains nothing: it checks its arguments and finds the devices.
    trainer = build_trainer(config.trainer, [], logger=False, enable_checkpointing=False)
    check_processes(trainer)
    batch_share(config.data.batch_size, trainer.world_size)
    trainers = Trainers(config.trainer, trainer.world_size, trainer.strategy.root_device, leads(), out)
    images = build_images(config)
    for note in images.notes:
        out.print(note)
    classifier = build_classifier(config, images.head, images.given, pretrained)
    if pretrained and config.model.file is not None and config.source.checkpoint is None:
        file = Path(config.model.file)
        load_named(file, classifier, images, config.source.strict, out, config.trains_source, images.given)
    check_recipe(classifier, config.optimizer, config.scheduler)
    if config.trains_source:
        check_recipe(classifier, config.source.optimizer, config.source.scheduler)
    return SourceStage(config, images, classifier, trainers, out)


def choose_classes(source: SourceStage, stages: Stages) -> tuple[ClassPartition, Path | None]:
    """Choose seen and absent classes; a rule that looks at the source model runs its stage first.

    Returns:
        The partition, and the file of the source model's weights where its stage has run.
    """
    images, rule = source.images, source.config.partition
    weights = source.run(stages) if rule.by_source_model else None
    context = PartitionContext(
        images.head,
        images.columns("train"),
        images.columns("test"),
        images.samples,
        source.class_means() if rule.by_source_model else None,
    )
    return rule.build(context), weights


def build_parts(
    source: SourceStage,
    partition: ClassPartition,
    calibrators: Mapping[str, Calibrator[Any]],
    trained: bool = True,
) -> Parts:
    """Build the parts of a run whose classes are chosen.

    Args:
        source: the source stage.
        partition: seen, absent and other columns.
        calibrators: the calibrators to fit, by name.
        trained: whether the run trains the model.

    Raises:
        InputError: data that do not fit the partition, a single seen class for pseudo cross-validation,
            calibrators that move another head than a linear one, or that compare classes with a source model
            that does not know them.
    """
    config, images, classifier = source.config, source.images, source.classifier
    new = without(partition.seen, images.known)
    check_new_classes(calibrators, [images.class_names[column] for column in new])
    if new and config.model.head != "linear":
        raise InputError(
            f"model.head={config.model.head}: its columns cannot begin from images of new classes, such as "
            f"{images.class_names[new[0]]}; choose linear"
        )
    for name, calibrator in calibrators.items():
        if calibrator.folds is not None:
            calibrator.folds.draw(partition)
        if calibrator.moves_head and isinstance(classifier.head, CosineHead):
            raise InputError(
                f"calibration.use=[{', '.join(calibrators)}]: {name} moves the rows of a linear head; set "
                "model.head=linear, or leave it out"
            )
    data = build_datamodule(config, images, classifier, partition, config.seed)
    if trained and not build_method(config).keeps_statistics:
        check_steps(config, classifier, data, source.trainers.world_size)
    for warning in _warnings(config, images, partition, calibrators, data, trained):
        source.out.print(warning)
    return Parts(
        config,
        images,
        classifier,
        source.trainers,
        dict(calibrators),
        partition,
        tuple(new),
        data,
        source.out,
    )


def identity(config: TrainConfig, images: Images) -> dict[str, Any]:
    """Everything in which two runs of the same computation are equal, as JSON types."""
    content = {"content": config.content(), "versions": versions(), "samples": images.samples}
    return json.loads(json.dumps(content))


def _warnings(
    config: TrainConfig,
    images: Images,
    partition: ClassPartition,
    calibrators: Mapping[str, Calibrator[Any]],
    data: PartitionedDataModule,
    trained: bool,
) -> Iterator[str]:
    """Lines on what the data are too few for."""

    def named(columns: Sequence[int], of: str) -> str:
        names = ", ".join(images.class_names[column] for column in columns[:3])
        return f"{names}{', …' if columns[3:] else ''} ({len(columns)} of {of})"

    seen, absent = f"{len(partition.seen)} seen classes", f"{len(partition.absent)} absent classes"
    if lost := without(partition.absent, images.known):
        yield (
            f"The source model was never given {named(lost, absent)}: there is nothing that calibration "
            "could bring back"
        )
    train, pool = images.readers["train"], images.readers["pool"]
    assert train is not None
    if config.data.holdout and (bare := without(partition.seen, train.targets[data.held_out].tolist())):
        yield (
            f"data.holdout: holds out no image of {named(bare, seen)}, which have a single image or too "
            "large groups"
        )
    size, count = config.data.batch_size, data.num_trained
    if trained and data.loading.iterations_per_epoch is None and 2 < count <= size:
        smaller = 2 ** max(1, (count // 4).bit_length() - 1)
        yield (
            f"data.batch_size={size}: an epoch is one step, of all {count} images; a smaller one, such as "
            f"{smaller}, makes it {math.ceil(count / smaller)}"
        )
    learning = [name for name, c in calibrators.items() if c.moves_head and c.lane == "unlabelled"]
    if pool is not None and learning:
        classes = len(partition.seen) + len(partition.absent)
        each = len(pool.targets) / classes
        if each < FEW:
            others = [name for name, c in calibrators.items() if c.lane == "seen_only"]
            yield (
                f"data.readers.pool: {len(pool.targets)} images are {each:.1f} for each of {classes} "
                f"classes, too few for {', '.join(learning)} to learn what these look like; before you "
                f"deploy, compare what needs no pool: {', '.join(others) or 'interpolated'}"
            )


def manifest(parts: Parts) -> PartitionManifest:
    """The manifest of the choice of classes, the lists of samples and the images that are held out."""
    images, held_out = parts.images, parts.data.held_out
    return PartitionManifest.of(
        parts.partition, images.class_names, images.samples, images.names("train", held_out)
    )


def shared_facts(parts: Parts, source_weights: Path | None) -> dict[str, Any]:
    """The facts that all processes of a run must find equal, by the configuration key that decides them."""
    return {
        "data.readers": parts.images.samples,
        # Two files of the same tensors may differ in the order of their metadata.
        "cache_dir": None if source_weights is None else checksum(load_tensors(source_weights)),
        "partition": parts.partition.record().model_dump(mode="json"),
    }
