"""Build model, data, method, calibrators and callback from the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lightning.pytorch import seed_everything
from PIL import Image
from torch import Tensor

from ftc.assembly.images import Images
from ftc.assembly.instantiate import make
from ftc.calibrators import Calibration, Calibrator, FoldEvidence, FoldPlan, Observed
from ftc.callbacks import CalibrationCallback
from ftc.config.calibration import CalibratorsConfig
from ftc.config.commands import TrainConfig
from ftc.config.model import ClipModelConfig, TimmModelConfig
from ftc.config.training import OptimizerConfig, SchedulerConfig
from ftc.data import ImageCache, Loading, PartitionedDataModule, Preprocessing, batch_share, hold_out
from ftc.errors import InputError
from ftc.evaluation.summary import Bootstrap, Measures
from ftc.finetune import FineTuneModule, Full, Method, build_optimizer, build_scheduler
from ftc.models import (
    Classifier,
    batch_norms,
    checkpoint_gradients,
    create_classifier,
    create_clip_classifier,
    pretrained_width,
)
from ftc.partition import ClassPartition, HeadColumns


def build_classifier(
    config: TrainConfig, head: HeadColumns, given: int, pretrained: bool = True
) -> Classifier:
    """Build the backbone with a head of one column per class.

    Args:
        config: the job's configuration.
        head: the names of its columns; CLIP's head is made from them.
        given: number of columns that come with the model, the first ones. Of the others, CLIP's are made from
            their names; other models' are zeros.
        pretrained: False where a checkpoint is loaded over the model's own weights. So is ``model.weights``,
            by whoever calls.

    Raises:
        InputError: an unknown model, weights that cannot be loaded, or a pre-trained head of another width
            without source images to train it on.
    """
    # The source stage's seed: it identifies the initial weights in the cache of source models.
    seed_everything(config.source.seed, workers=True, verbose=False)
    model = config.model
    pretrained = pretrained and config.source.checkpoint is None
    if isinstance(model, TimmModelConfig) and model.pretrained and model.file is None and pretrained:
        width = pretrained_width(model.name, model.arguments)
        if not config.trains_source and width not in (None, given):
            named = "the data" if given == len(head) else f"data.columns={config.data.columns} names"
            raise InputError(
                f"model.name={model.name}: its head has {width} columns, {named} {given} "
                "classes; name the columns in data.columns (model+ adds the data's to the model's own), or "
                "give source images"
            )
    classifier = _create(model, head, given, pretrained and model.file is None)
    if config.channels_last:
        classifier.use_channels_last()
    if config.grad_checkpointing:
        checkpoint_gradients(classifier.backbone, config.model.name)
    if config.compile:
        classifier.backbone.compile()
    return classifier


def _create(
    model: TimmModelConfig | ClipModelConfig, head: HeadColumns, given: int, pretrained: bool
) -> Classifier:
    adds = given < len(head)
    if isinstance(model, ClipModelConfig):
        words = {head.column(name): text for name, text in model.words.items()}
        texts = [words.get(column, name) for column, name in enumerate(head.names)]
        return create_clip_classifier(
            model.name, model.pretrained, texts, model.templates, pretrained or adds
        )
    classifier = create_classifier(
        model.name, given, model.pretrained and pretrained, model.arguments, model.head
    )
    if adds:
        classifier.widen(len(head))
    return classifier


def build_datamodule(
    config: TrainConfig,
    images: Images,
    classifier: Classifier,
    partition: ClassPartition,
    seed: int,
    held_out: Tensor | None = None,
) -> PartitionedDataModule:
    """Build the target domain's data module.

    Args:
        config: the job's configuration.
        images: the run's images.
        classifier: says how to prepare them.
        partition: seen, absent and other columns.
        seed: seed of the training stream.
        held_out: the training images that are held out; by default they are chosen by ``data.holdout``.
    """
    data, method = config.data, build_method(config)
    train = images.readers["train"]
    assert train is not None
    if method.rehearsal and images.readers["source"] is None:
        raise InputError(
            f"method={config.method['_target_']}: wants images of the source domain; name data.readers.source"
        )
    if held_out is None:
        held_out = hold_out(train.targets, partition.seen, data.holdout, images.groups["train"])
    return PartitionedDataModule(
        train,
        partition,
        _preprocessing(config, classifier, "augmentation"),
        val=images.readers["val"],
        test=images.readers["test"],
        pool=images.readers["pool"],
        held_out=held_out,
        source=images.readers["source"],
        rehearsal=method.rehearsal,
        all_classes=method.oracle,
        gallery_every=data.gallery_every,
        loading=_loading(config, seed, data.iterations_per_epoch),
    )


def build_source_datamodule(
    config: TrainConfig, images: Images, classifier: Classifier, held_out: Tensor
) -> PartitionedDataModule:
    """Build the source domain's data module, which trains on all of its classes but not on ``held_out``."""
    reader = images.readers["source"]
    assert reader is not None
    return PartitionedDataModule(
        reader,
        ClassPartition(len(images.class_names), seen=images.columns("source")),
        _preprocessing(config, classifier, "source_augmentation"),
        held_out=held_out,
        loading=_loading(config, config.source.seed, config.source.iterations_per_epoch),
    )


def _preprocessing(config: TrainConfig, classifier: Classifier, key: str) -> Preprocessing:
    nodes = getattr(config.data, key)
    augmentation = [make(f"data.{key}[{i}]", node) for i, node in enumerate(nodes)]
    try:
        preprocessing = Preprocessing(classifier.data_config, augmentation)
        channels = preprocessing.input_size[0]
        trial = preprocessing.resized(Image.new("RGB" if channels == 3 else "L", (8, 8)))
        if not preprocessing.normalise(trial[None]).isfinite().all():
            raise ValueError("mean and std give values that are not finite")
        return preprocessing
    except InputError:
        raise
    except Exception as error:  # timm's and Pillow's share no base class
        reason = " ".join(str(error).split())
        raise InputError(
            f"model.kwargs: timm cannot prepare images as pretrained_cfg_overlay says ({reason})"
        ) from error


def _loading(config: TrainConfig, seed: int, iterations: int | None) -> Loading:
    data = config.data
    return Loading(
        batch_size=data.batch_size,
        eval_batch_size=data.eval_batch_size,
        iterations_per_epoch=iterations,
        num_workers=data.num_workers,
        seed=seed,
        cache=ImageCache(config.cache("images")) if data.cache else None,
    )


def build_method(config: TrainConfig) -> Method:
    """Build a new method object, for one training.

    Raises:
        InputError: the target is no method, does not take its arguments, or fits neither strategy nor
            objective.
    """
    target = config.method["_target_"]
    method = make("method", config.method)
    if not isinstance(method, Method):
        raise InputError(
            f"method={target}: is no method; choose full, or another of the group method that --help lists, "
            "or name a subclass of ftc.finetune.Method"
        )
    if method.needs_whole_weights and config.trainer.strategy == "fsdp":
        raise InputError(
            f"method={target}: needs whole weights in every process, but trainer.strategy=fsdp shards them; "
            "choose trainer=ddp, or method=full"
        )
    if method.oracle and config.objective is not None and "oracle" not in config.objective:
        raise InputError(
            f"objective={config.objective}: would choose a model that {target} trains on labels of absent "
            "classes; choose another method, or a bound such as oracle_acc_all"
        )
    return method


def build_module(
    classifier: Classifier,
    optimizer: OptimizerConfig,
    scheduler: SchedulerConfig,
    method: Method | None = None,
    hidden: Sequence[int] = (),
) -> FineTuneModule:
    """Build the module that trains a classifier.

    Args:
        classifier: the model to train.
        optimizer, scheduler: their configuration.
        method: the way to fine-tune; by default `Full`.
        hidden: head columns that are masked out of the loss.

    Raises:
        InputError: see `check_recipe`, when training begins.
    """
    return FineTuneModule(
        classifier,
        partial(build_optimizer, **optimizer.model_dump()),
        partial(build_scheduler, **scheduler.model_dump()),
        method,
        hidden,
    )


def check_steps(
    config: TrainConfig, classifier: Classifier, data: PartitionedDataModule, world_size: int
) -> None:
    """Refuse training steps of one image where the model has batch norm, which cannot train on one.

    Raises:
        InputError: a process's share of a batch, or of all images, is a single image.
    """
    if not batch_norms(classifier):
        return
    share = batch_share(config.data.batch_size, world_size)
    images = data.num_trained
    whole_batches = data.loading.iterations_per_epoch is not None
    if share < 2 or (images <= world_size and not whole_batches):
        raise InputError(
            f"data.batch_size={config.data.batch_size}: gives a process 1 image a step ({images} images, "
            f"{world_size} processes), on which the batch norm of {config.model.name} cannot train; choose "
            "more, or method=linear_probe"
        )


def check_recipe(classifier: Classifier, optimizer: OptimizerConfig, scheduler: SchedulerConfig) -> None:
    """Refuse a recipe before anything is trained by it.

    Raises:
        InputError: timm does not have the optimiser or the schedule, or they do not take their arguments.
    """
    trial = build_optimizer(Full().parameter_groups(classifier), **optimizer.model_dump())
    build_scheduler(trial, 1, **scheduler.model_dump())


def build_measures(config: CalibratorsConfig) -> Measures:
    """Build the settings of reports: top-k, average, bootstrap and criterion."""
    bootstrap = Bootstrap(**config.bootstrap.model_dump()) if config.bootstrap.replicates else None
    return Measures(tuple(config.top_k), config.average, bootstrap, config.criterion)


def instantiate_calibrators(config: CalibratorsConfig) -> dict[str, Calibrator[Any]]:
    """Build the calibrators of ``calibration.use``, by name.

    Raises:
        InputError: a calibrator cannot be built.
    """
    nodes = config.calibrators
    return {name: make(f"calibration.calibrators.{name}", nodes[name]) for name in config.use}


def build_calibrators(config: TrainConfig) -> dict[str, Calibrator[Any]]:
    """Build the calibrators of ``calibration.use`` and check them against data, objective and default.

    Raises:
        InputError: a calibrator cannot be built or lacks data, does not give the objective, or is an oracle
            and yet the default.
    """
    built = instantiate_calibrators(config.calibration)
    use, readers = config.calibration.use, config.data.readers
    for name, calibrator in built.items():
        if calibrator.lane == "unlabelled" and readers.val is None and readers.pool is None:
            raise InputError(
                f"calibration.use={use}: {name} wants unlabelled target images of all classes; name "
                "data.readers.pool or data.readers.val, or leave it out"
            )
        if calibrator.held_out and not config.data.held_out:
            raise InputError(
                f"calibration.use={use}: {name} wants labelled seen images held out of fine-tuning; set "
                "data.holdout to their share, such as 0.1, name data.readers.val, or leave it out"
            )
    objective, deployed = config.objective, built[config.calibration.deployed]
    if objective == "pseudo_ausuc" and all(calibrator.folds is None for calibrator in built.values()):
        raise InputError(
            f"objective={objective}: wants the folds of pseudo cross-validation; add pcv to calibration.use"
        )
    if objective == "held_out_acc_seen" and deployed.lane != "seen_only":
        raise InputError(
            f"objective={objective}: is the accuracy with the γ of {config.calibration.deployed}, which "
            "looks at more than labelled seen images; set calibration.default to a seen-only calibrator"
        )
    if deployed.lane == "oracle":
        raise InputError(
            f"calibration.default={config.calibration.deployed}: looks at evaluated labels, so it cannot be "
            "deployed; choose another"
        )
    return built


def build_callback(
    config: TrainConfig,
    data: PartitionedDataModule,
    calibrators: Mapping[str, Calibrator[Any]],
    folds: Mapping[FoldPlan, FoldEvidence] | None = None,
    source: Observed | None = None,
    fitted: Mapping[str, Calibration] | None = None,
) -> CalibrationCallback:
    """Build the callback that evaluates the model and fits the calibrators.

    Args:
        config: the job's configuration.
        data: the target domain's data module.
        calibrators: the calibrators to fit, by name.
        folds: evidence of pseudo cross-validation, by plan.
        source: the calibration data under the source model, if it was evaluated before.
        fitted: γ of calibrators that were fitted before, by name.
    """
    return CalibrationCallback(
        data.partition,
        calibrators,
        loaders=data.validation_roles,
        head="classifier.head",
        measures=build_measures(config.calibration),
        # Held-out training images are of seen classes only, so they are no pool.
        pool_from_val=config.data.readers.val is not None,
        folds=folds,
        source=source,
        fitted=fitted,
    )
