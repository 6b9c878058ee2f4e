"""A finished run's images and model, brought together again outside any training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ftc.assembly.images import build_reader
from ftc.config.targets import check_targets
from ftc.data import Preprocessing, Reader, workers
from ftc.data.loaders import BatchLoader, ReaderDataset, decoded, normalised
from ftc.data.store import as_is
from ftc.errors import InputError
from ftc.models import Classifier
from ftc.partition import PartitionManifest
from ftc.runs.finished import FinishedRun
from ftc.runs.folder import PARTITION_FILE

Split = Literal["source", "train", "val", "test", "pool"]

# Images that a model is given at a time.
_BATCH = 64


def images_of(run: FinishedRun, split: Split, allowed: list[str]) -> Reader:
    """The images of a reader of a run, labelled by head column.

    Args:
        run: the finished run.
        split: the name of their reader.
        allowed: modules whose code its reader may be, see `ftc.config.targets.check_targets`.

    Raises:
        InputError: the run has no such reader, it cannot be built, or has other images than the run had.
    """
    manifest = PartitionManifest.read(run.folder / PARTITION_FILE)
    if split not in manifest.samples:
        raise InputError(f"run={run.folder}: had no {split} images of its own; name a run of ftc.train")
    check_targets({"data": run.data.model_dump()}, allowed)
    cache = Path(str(run.config.get("cache_dir", "outputs/cache")))
    reader, samples = build_reader(run.data, split, manifest.class_names, cache)
    if samples != manifest.samples[split]:
        raise InputError(
            f"run={run.folder}: data.readers.{split} has {samples.count} samples that are not the "
            f"{manifest.samples[split].count} of the run; bring back the run's own"
        )
    return reader


def logits_of(classifier: Classifier, reader: Reader, rows: Tensor | None = None) -> Tensor:
    """A classifier's logits of images, (N, C), float32, as its run computes them.

    Args:
        classifier: in eval mode, on the CPU.
        reader: the images.
        rows: int64 (N,), which of them; by default all.
    """
    preprocessing = Preprocessing(classifier.data_config)
    chosen = torch.arange(len(reader.targets)) if rows is None else rows
    loader = BatchLoader(
        ReaderDataset(reader.targets, chosen, partial(decoded, reader, preprocessing.resized)),
        batch_size=_BATCH,
        num_workers=workers("auto"),
        collate_fn=as_is,
        finish=partial(normalised, preprocessing, torch.device("cpu")),
    )
    with torch.no_grad():
        return torch.cat([classifier(batch["image"]) for batch in loader])
