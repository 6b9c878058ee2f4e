"""The folds of pseudo cross-validation, fine-tuned with the run's recipe (docs/definitions.md, "PCV")."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from torch import Tensor

from ftc.assembly.components import build_datamodule, build_method, build_module
from ftc.assembly.trainers import averaging_callbacks, training_callbacks
from ftc.calibrators import Fold, FoldEvidence, FoldPlan
from ftc.callbacks import PredictionRecorder, fit
from ftc.errors import InputError
from ftc.files import digest
from ftc.models import cached_tensors, load_tensors, other_weights
from ftc.partition import ClassPartition, without
from ftc.runs.parts import Parts

# The splits that folds are trained and evaluated on; rehearsal trains on the source's as well.
FITTED = {"train", "val"}


def fold_evidence(parts: Parts, plan: FoldPlan, source_weights: Path) -> FoldEvidence:
    """The evidence of all folds of a plan, see `train_or_find_fold`."""
    folds = tuple(train_or_find_fold(parts, plan, k, source_weights) for k in range(plan.folds))
    return FoldEvidence(f"seen train, seen val, {plan.folds} fine-tunes more", folds)


def train_or_find_fold(parts: Parts, plan: FoldPlan, k: int, source_weights: Path) -> Fold:
    """Take a fold from the cache, or train it now and keep it there.

    Args:
        parts: data and recipe; the classifier's weights are the same before and afterwards.
        plan: says which classes are pseudo-seen and which pseudo-absent.
        k: number of the fold, from 0.
        source_weights: the file of the source model's weights.

    Raises:
        InputError: there are too few held-out samples.
    """
    pseudo_seen = plan.draw(parts.partition)[k]

    def outputs(checkpoint: Path) -> dict[str, Tensor]:
        with other_weights(parts.classifier, load_tensors(source_weights)):
            return _train(parts, plan, k, pseudo_seen, checkpoint)

    identity = _identity(parts, plan, k, pseudo_seen, source_weights)
    path, _ = cached_tensors(identity, parts.config.cache("folds"), outputs, parts.out.print)
    tensors = load_tensors(path)
    try:
        return Fold.from_logits(
            tensors["logits"], tensors["source_logits"], tensors["target"], parts.partition, pseudo_seen
        )
    except InputError as error:
        raise InputError(f"fold {k} of pseudo cross-validation: {error}") from error


def _train(
    parts: Parts, plan: FoldPlan, k: int, pseudo_seen: list[int], checkpoint: Path
) -> dict[str, Tensor]:
    """Fine-tune on the pseudo-seen classes; return logits of V before and after, (N, C), and labels (N,)."""
    config, classifier, seed = parts.config, parts.classifier, plan.seed + k
    pseudo_absent = without(parts.partition.seen, pseudo_seen)
    partition = ClassPartition(parts.partition.num_classes, pseudo_seen, pseudo_absent)
    data = build_datamodule(config, parts.images, classifier, partition, seed, parts.data.held_out)
    seed_everything(seed, workers=True, verbose=False)
    module = build_module(
        classifier, config.optimizer, config.scheduler, build_method(config), hidden=parts.partition.absent
    )
    recorder = PredictionRecorder(("val",))
    stage = f"fold {k}"
    evaluating = parts.trainers.single(stage, recorder)
    held_out = parts.data.held_out_dataloader()
    evaluating.validate(module, held_out, verbose=False)
    source = recorder.latest["val"]
    parts.out.print(f"Training fold {k} of {plan.folds}: {len(pseudo_seen)} pseudo-seen classes")
    training = parts.trainers.single(
        stage,
        *training_callbacks(config, seed, checkpoint),
        *averaging_callbacks(config),
        max_epochs=plan.epochs(config.trainer.max_epochs),
        limit_val_batches=0,
    )
    with module.prepared(data):
        fit(training, module, data)
    evaluating.validate(module, held_out, verbose=False)
    fine_tuned = recorder.latest["val"]
    return {
        "logits": fine_tuned["logits"],
        "source_logits": source["logits"],
        "target": fine_tuned["target"],
    }


def _identity(
    parts: Parts, plan: FoldPlan, k: int, pseudo_seen: list[int], source_weights: Path
) -> dict[str, Any]:
    """Everything that a fold depends on, as JSON types."""
    config = parts.config
    fitted = FITTED | ({"source"} if build_method(config).rehearsal else set())
    return {
        "source": source_weights.stem,
        "partition": parts.partition.record().model_dump(mode="json"),
        "pseudo_seen": pseudo_seen,
        "seed": plan.seed + k,
        "data": config.data.model_dump(
            include={"augmentation", "batch_size", "iterations_per_epoch", "cache"}
        ),
        "held_out": digest(parts.images.names("train", parts.data.held_out)),
        "readers": config.data.readers.model_dump(include=fitted),
        "samples": {split: digest for split, digest in parts.images.samples.items() if split in fitted},
        "method": config.method,
        "optimizer": config.optimizer.model_dump(),
        "scheduler": config.scheduler.model_dump(),
        "trainer": {
            **config.trainer.recipe(),
            "max_epochs": plan.epochs(config.trainer.max_epochs),
        },
        "execution": config.execution(),
        "ema": config.ema,
    }
