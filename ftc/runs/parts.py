"""What every job with images and a model consists of, built from the configuration, source model included."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, RichProgressBar
from rich.console import Console
from torch import Tensor

from ftc.assembly.components import (
    build_classifier,
    build_datamodule,
    build_images,
    build_module,
    build_source_datamodule,
    build_trainer,
)
from ftc.assembly.instantiate import make
from ftc.calibrators import Calibrator
from ftc.callbacks import (
    CalibrationCallback,
    Checkpointing,
    PredictionRecorder,
    SeedSteps,
    StopWhenDiverged,
    fit,
)
from ftc.config.commands import TrainConfig, file_digest
from ftc.config.data import TimmModelConfig
from ftc.config.partition import SplitContext
from ftc.data import PartitionedDataModule, batch_share
from ftc.errors import InputError
from ftc.evaluation.summary import Bootstrap, Evaluation
from ftc.metrics import NearestClassMean
from ftc.models import Classifier, load_checkpoint, load_weights, pretrained_width
from ftc.partition import ClassPartition, SplitManifest
from ftc.results import CONFIG_FILE
from ftc.runs.folder import Predictions, RunFolder
from ftc.runs.processes import all_or_none, check_processes, check_shared
from ftc.runs.source import prepare_source
from ftc.versions import versions

C = TypeVar("C", bound=TrainConfig)

# Where training happens: what is cached does not depend on it.
PLACE = {"accelerator", "devices", "num_nodes", "strategy"}
# Where images are read from and how fast: the same.
_INPUT = {"cache_dir", "num_workers"}


class Job(Generic[C]):
    """Images, model, partition and calibrators of one job.

    Everything that can refuse its configuration is built before the folder is made.

    Args:
        config: with ``run_dir`` filled in.
        folder: the job's.
        out: where it tells how it goes.
        leads: whether this process writes; under DDP the others compute along.
        calibrators: those to fit, by name.
        pretrained: whether the model's own weights matter, or others are loaded over them.

    Raises:
        InputError: something in the configuration that only building it can tell.
    """

    def __init__(
        self,
        config: C,
        folder: Path,
        out: Console,
        leads: bool,
        calibrators: Mapping[str, Calibrator[Any]],
        pretrained: bool = True,
    ) -> None:
        self.config = config
        self.out = out
        self.leads = leads
        self.timing: dict[str, float] = {}
        self._source_file: Path | None = None
        self.folder = RunFolder(folder)
        self.calibrators = dict(calibrators)
        # Also built without loggers and folder first: the trainer checks devices and its own arguments.
        trainer = build_trainer(config.trainer, [], logger=False, enable_checkpointing=False)
        check_processes(trainer)
        batch_share(config.data.batch_size, trainer.world_size)
        device = trainer.strategy.root_device
        self._own_device = 1 if device.type == "cpu" else [device.index]
        self.images = build_images(config.data, config.model)
        self._tell_skipped()
        self.classifier = self._build_classifier(pretrained and config.source.checkpoint is None)
        self.module = build_module(self.classifier, config.optimizer, config.scheduler)
        self.partition = self._choose_classes()
        self.data = build_datamodule(config.data, self.images, self.classifier, self.partition, config.seed)

    def callback(self, calibrators: Mapping[str, Calibrator[Any]], **arguments: Any) -> CalibrationCallback:
        """What evaluates the model and fits the calibrators."""
        config = self.config.calibration
        bootstrap = config.bootstrap
        return CalibrationCallback(
            self.partition,
            calibrators,
            loaders=self.data.validation_roles,
            head="classifier.head",
            top_k=config.top_k,
            average=config.average,
            # Held-out training images are of seen classes only: no pool.
            pool_from_val=self.config.data.readers.val is not None,
            bootstrap=Bootstrap(**bootstrap.model_dump()) if bootstrap.replicates else None,
            **arguments,
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        start = time.perf_counter()
        yield
        self.timing[name] = time.perf_counter() - start

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes two runs the same computation; JSON types."""
        content = {"content": self.config.content(), "versions": versions(), "samples": self.images.samples}
        return json.loads(json.dumps(content))

    def start_folder(self) -> None:
        """Make the folder, with the configuration and the split's manifest."""
        with all_or_none():
            if self.leads:
                self.folder.start(self.config, self.identity)
                self.folder.keep_split(self.manifest())

    def check_shared(self) -> None:
        """Refuse hosts that do not see the same folder, or have found other images or weights.

        Raises:
            InputError: what is not shared.
        """
        check_shared(self.folder.path / CONFIG_FILE, self._facts, self.leads)

    def _facts(self) -> dict[str, Any]:
        source = None if self._source_file is None else file_digest(str(self._source_file))
        return {
            "data.readers": self.images.samples,
            "source.cache_dir": source,
            "partition": self.partition.to_dict(),
        }

    def manifest(self) -> SplitManifest:
        """The split, citable."""
        return SplitManifest.of(self.partition, self.images.class_names, self.images.samples)

    def averaging(self) -> list[Callback]:
        """Evaluates and keeps an exponential moving average of the weights, where one is asked for."""
        decay = self.config.ema
        return [] if decay is None else [EMAWeightAveraging(decay=decay)]

    def training(self, seed: int, checkpoint: Path) -> list[Callback]:
        """What goes along with every training: see each."""
        minutes = self.config.checkpoint_minutes
        return [StopWhenDiverged(), SeedSteps(seed), Checkpointing(checkpoint, minutes)]

    def progress(self) -> RichProgressBar:
        # A process that trains alone takes itself for the leader.
        return RichProgressBar(leave=False, refresh_rate=int(self.leads))

    def quiet_trainer(self, *callbacks: Callback) -> Trainer:
        """A trainer that neither logs nor saves."""
        return build_trainer(
            self.config.trainer,
            [self.progress(), *callbacks],
            logger=False,
            enable_checkpointing=False,
        )

    def single_trainer(self, *callbacks: Callback, **arguments: Any) -> Trainer:
        """A trainer for what is cached: in one process, the others take the tensors from the cache.

        It joins no process group, and runs where this process will be in the run itself.
        """
        return build_trainer(
            self.config.trainer,
            [self.progress(), *callbacks],
            devices=self._own_device,
            num_nodes=1,
            strategy="auto",
            logger=False,
            enable_checkpointing=any(isinstance(callback, Checkpointing) for callback in callbacks),
            **arguments,
        )

    def test(
        self, trainer: Trainer, callback: CalibrationCallback, recorder: PredictionRecorder
    ) -> tuple[Evaluation, Predictions]:
        """Evaluate on the test split."""
        trainer.test(self.module, self.data, verbose=False)
        assert callback.evaluation is not None
        return callback.evaluation, dict(recorder.latest)

    # The source model

    def source_stage(self) -> Path:
        """Bring the classifier to the source model's weights; the file that holds them."""
        if self._source_file is not None:
            load_weights(self._source_file, self.classifier)
            return self._source_file
        with self.stage("source"), all_or_none():
            source_file, fresh = self._source()
        verb = "cached, loaded" if not fresh else "trained" if self.config.trains_source else "loaded"
        self.out.print(f"Source model {verb} in {self.timing['source']:.1f} s: {source_file}")
        self._source_file = source_file
        return source_file

    def _source(self) -> tuple[Path, bool]:
        config = self.config
        trained_on = {
            **config.data.model_dump(include={"source_augmentation", "batch_size", "cache"}),
            "reader": config.data.readers.source,
            "samples": self.images.samples.get("source"),
        }
        identity = {
            "model": config.model.model_dump(),
            "class_names": self.images.class_names,
            "data": trained_on if config.trains_source else None,
            "checkpoint": file_digest(config.source.checkpoint),
            "source": config.source.model_dump(exclude={"cache_dir", "checkpoint"}),
            "trainer": config.trainer.model_dump(exclude={*PLACE, "max_epochs"}),
            "execution": config.execution(),
            "versions": versions(),
        }

        def train(classifier: Classifier, checkpoint: Path) -> None:
            if config.source.checkpoint is not None:
                self.load(Path(config.source.checkpoint), classifier)
            elif config.trains_source:
                seed_everything(config.source.seed, workers=True, verbose=False)
                module = build_module(classifier, config.source.optimizer, config.source.scheduler)
                trainer = self.single_trainer(
                    *self.training(config.source.seed, checkpoint),
                    max_epochs=config.source.max_epochs,
                    limit_val_batches=0,
                )
                fit(trainer, module, self._source_data(classifier))

        return prepare_source(self.classifier, identity, Path(config.source.cache_dir), train)

    def load(self, path: Path, classifier: Classifier) -> None:
        """Load a checkpoint of any known format and say what it lacks or has too much.

        Raises:
            InputError: a file that is none, weights of another model, or classes in another order.
        """
        report = load_checkpoint(path, classifier, self.config.source.strict)
        names = report.metadata.get("class_names")
        if names is not None and tuple(names) != self.images.class_names:
            raise InputError(
                f"{path}: its head's columns are {', '.join(names[:5])}, …, the data's "
                f"{', '.join(self.images.class_names[:5])}, …; give the same data.columns"
            )
        self.out.print(str(report), soft_wrap=True, markup=False, highlight=False)

    def _build_classifier(self, pretrained: bool) -> Classifier:
        config = self.config
        # Seeded by the source: its initial weights are part of what the cache stands for.
        seed_everything(config.source.seed, workers=True, verbose=False)
        names = self.images.class_names
        if isinstance(config.model, TimmModelConfig) and config.model.pretrained and pretrained:
            width = pretrained_width(config.model.name, config.model.kwargs)
            if not config.trains_source and width not in (None, len(names)):
                raise InputError(
                    f"model.name={config.model.name}: its head has {width} columns, the data "
                    f"{len(names)} classes; name the columns in data.columns, or give source images"
                )
        classifier = build_classifier(config.model, names, pretrained)
        if config.channels_last:
            classifier.use_channels_last()
        if config.compile:
            classifier.backbone.compile()
        return classifier

    def _source_data(self, classifier: Classifier) -> PartitionedDataModule:
        source = self.config.source
        return build_source_datamodule(
            self.config.data, self.images, classifier, source.iterations_per_epoch, source.seed
        )

    # The partition

    def _tell_skipped(self) -> None:
        for key, count in self.images.skipped.items():
            reader = self.images.readers[key]
            assert reader is not None
            self.out.print(f"data.readers.{key}: {count} samples left out, {len(reader.targets)} are used")

    def _choose_classes(self) -> ClassPartition:
        context = SplitContext(
            self.images.class_names,
            self.images.columns("train"),
            self.images.columns("test"),
            self.images.samples,
            self._class_means,
        )
        return self.config.partition.build(context)

    def _class_means(self) -> Tensor:
        """Class means (C, D) of the source model's features; without source images, its head's weights."""
        self.source_stage()
        if self.images.readers["source"] is None:
            return self.classifier.head.weight.detach().cpu()
        data = self._source_data(self.classifier)
        recorder = PredictionRecorder(("calibration",))
        trainer = self.single_trainer(recorder)
        trainer.validate(self.module, data.calibration_dataloader(), verbose=False)
        latest = recorder.latest["calibration"]
        means = NearestClassMean(len(self.images.class_names), self.classifier.num_features)
        means.update(latest["features"], latest["target"])
        return means.compute()


def build_calibrators(config: TrainConfig) -> dict[str, Calibrator[Any]]:
    """Those of ``calibration.use``, as far as they fit the data and each other.

    Raises:
        InputError: one that cannot be built, or wants data that are not there.
    """
    methods = config.calibration.methods
    built = {name: make(f"calibration.methods.{name}", methods[name]) for name in config.calibration.use}
    readers = config.data.readers
    for name, calibrator in built.items():
        if calibrator.lane == "unlabelled" and readers.val is None and readers.pool is None:
            raise InputError(
                f"calibration.use={config.calibration.use}: {name} wants unlabelled target images of all "
                "classes; name data.readers.pool or data.readers.val, or leave it out"
            )
        if calibrator.needs_held_out and not config.data.held_out:
            raise InputError(
                f"calibration.use={config.calibration.use}: {name} wants labelled seen images held out of "
                "fine-tuning; set data.holdout to their share, such as 0.1, name data.readers.val, or leave "
                "it out"
            )
    deployed = built[config.calibration.deployed]
    if config.objective == "held_out_acc_seen" and deployed.lane != "seen_only":
        raise InputError(
            f"objective={config.objective}: is the accuracy with the γ of {config.calibration.deployed}, "
            "which looks at more than labelled seen images; set calibration.default to a seen-only calibrator"
        )
    if deployed.lane == "oracle":
        raise InputError(
            f"calibration.default={config.calibration.deployed}: looks at evaluated labels, so it is no "
            "method to deploy; choose another"
        )
    return built
