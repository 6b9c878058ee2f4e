"""The folds of pseudo cross-validation (PCV): fine-tuned as the run itself will be, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from torch import Tensor

from ftc.assembly.components import build_datamodule, build_module
from ftc.calibrators import Fold, FoldEvidence, FoldPlan
from ftc.callbacks import PredictionRecorder, fit
from ftc.errors import InputError
from ftc.models import cached_tensors, load_tensors, load_weights
from ftc.partition import ClassPartition
from ftc.runs.parts import PLACE, Job

# The splits that folds are trained and evaluated on.
FITTED = {"train", "val"}


def fold_evidence(job: Job[Any], plan: FoldPlan, source_file: Path) -> FoldEvidence:
    """All folds of a plan, see `train_or_find_fold`."""
    folds = tuple(train_or_find_fold(job, plan, k, source_file) for k in range(plan.folds))
    return FoldEvidence(f"seen train, seen val, {plan.folds} fine-tunes more", folds)


def train_or_find_fold(job: Job[Any], plan: FoldPlan, k: int, source_file: Path) -> Fold:
    """A fold from the cache, or trained now and kept there.

    Args:
        job: whose data and recipe; its classifier has the source model's weights, before and afterwards.
        plan: which classes play which part.
        k: the fold.
        source_file: the source model's weights.

    Raises:
        InputError: held-out samples that do not suffice.
    """
    config = job.config
    pseudo_seen = plan.draw(job.partition)[k]
    seed = plan.seed + k
    epochs = plan.epochs(config.trainer.max_epochs)
    identity = {
        "source": source_file.stem,
        "partition": job.partition.to_dict(),
        "pseudo_seen": pseudo_seen,
        "seed": seed,
        "data": config.data.model_dump(
            exclude={"readers", "gallery", "eval_batch_size", "num_workers", "cache_dir"}
        ),
        "readers": config.data.readers.model_dump(include=FITTED),
        "samples": {split: digest for split, digest in job.images.samples.items() if split in FITTED},
        "optimizer": config.optimizer.model_dump(),
        "scheduler": config.scheduler.model_dump(),
        "trainer": {**config.trainer.model_dump(exclude=PLACE), "max_epochs": epochs},
        "execution": config.execution(),
        "ema": config.ema,
    }

    def train(checkpoint: Path) -> dict[str, Tensor]:
        pseudo_absent = [c for c in job.partition.seen if c not in pseudo_seen]
        partition = ClassPartition(job.partition.num_classes, pseudo_seen, pseudo_absent)
        data = build_datamodule(config.data, job.images, job.classifier, partition, seed)
        seed_everything(seed, workers=True, verbose=False)
        module = build_module(
            job.classifier, config.optimizer, config.scheduler, without=job.partition.absent
        )
        recorder = PredictionRecorder(("val",))
        trainer = job.single_trainer(recorder)
        held_out = job.data.held_out_dataloader()
        trainer.validate(module, held_out, verbose=False)
        source = recorder.latest["val"]
        callbacks = (*job.training(seed, checkpoint), *job.averaging())
        fit(job.single_trainer(*callbacks, max_epochs=epochs, limit_val_batches=0), module, data)
        trainer.validate(module, held_out, verbose=False)
        fine_tuned = recorder.latest["val"]
        return {
            "logits": fine_tuned["logits"],
            "source_logits": source["logits"],
            "target": fine_tuned["target"],
        }

    path, trained = cached_tensors(identity, Path(config.calibration.cache_dir), train)
    if trained:
        load_weights(source_file, job.classifier)
    tensors = load_tensors(path)
    try:
        return Fold.from_logits(
            tensors["logits"], tensors["source_logits"], tensors["target"], job.partition, pseudo_seen
        )
    except InputError as error:
        raise InputError(f"fold {k} of pseudo cross-validation: {error}") from error
