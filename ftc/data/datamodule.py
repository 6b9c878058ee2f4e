"""Class-partitioned data for Lightning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ftc.data.readers import Reader
from ftc.data.sampler import EndlessSampler, ShardSampler, positions_per_epoch
from ftc.data.transforms import Transform
from ftc.errors import InputError
from ftc.partition import ClassPartition


class Batch(TypedDict):
    """What loaders yield: images (N, channels, H, W), target (N,) head columns, id (N,) in the reader."""

    image: Tensor
    target: Tensor
    id: Tensor


UNLABELLED = -1


class ReaderDataset(Dataset[Batch]):
    """Samples of a reader, transformed; without their labels (−1 instead) unless ``labelled``."""

    def __init__(self, reader: Reader, ids: Tensor, transform: Transform, labelled: bool = True) -> None:
        self.reader = reader
        self.ids = ids.tolist()
        self.transform = transform
        self.targets = reader.targets if labelled else torch.full_like(reader.targets, UNLABELLED)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Batch:
        sample = self.ids[index]
        image = self.transform(self.reader.decode(sample))
        return {"image": image, "target": self.targets[sample], "id": torch.tensor(sample)}


class PartitionedDataModule(LightningDataModule):
    """Loaders over target data of which only the seen classes may be trained on.

    * ``train``: seen classes of the training split, augmented, an endless shuffled stream.
    * ``calibration``: the same images, evaluation transform, in order.
    * ``gallery``: the training split's images of *all* classes, evaluation transform. Its seen part is the
      calibration data; the rest serves the nearest-class-mean probe only.
    * ``pool``: images whose labels are hidden: every target is −1.
    * ``val``, ``test``: all classes. Without a validation split, ``holdout`` keeps a share of the seen
      training images out of all of the above and evaluates on those.

    Validation runs over two or three loaders, `validation_roles` names them: the gallery (or, with
    ``gallery=False``, the calibration data), the pool where there is one, and then the validation data.

    Args:
        train: training split of the target domain; absent classes in it reach the gallery only.
        val: validation split, or None.
        test: test split, or None.
        pool: target images to be used without labels, or None; the names of its classes do not matter.
        holdout: share of each seen class's training images to hold out in place of a validation split; at
            least one image of a class stays in training. The choice depends on nothing but their number.
        partition: seen, absent and other head columns.
        train_transform: image → tensor, for training.
        eval_transform: image → tensor, for everything else.
        batch_size: training images a step and process.
        eval_batch_size: images a step and process elsewhere; by default ``batch_size``.
        iterations_per_epoch: steps an "epoch", drawn from the endless stream; None for one pass.
        num_workers: worker processes a loader.
        gallery: whether validation passes over all classes of the training split.
        seed: of the training stream's order.

    Raises:
        InputError: a reader whose class names are not the head's columns, a seen class without images, or
            ``holdout`` beside a validation split or outside [0, 1).
    """

    def __init__(
        self,
        train: Reader,
        partition: ClassPartition,
        train_transform: Transform,
        eval_transform: Transform,
        *,
        val: Reader | None = None,
        test: Reader | None = None,
        pool: Reader | None = None,
        holdout: float = 0.0,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        iterations_per_epoch: int | None = None,
        num_workers: int = 0,
        gallery: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, reader in (("train", train), ("val", val), ("test", test)):
            if reader is not None and len(reader.class_names) != partition.num_classes:
                raise InputError(
                    f"data.{name} names {len(reader.class_names)} classes, the head has "
                    f"{partition.num_classes} columns; set data.num_classes to the head's width"
                )
        counts = torch.bincount(train.targets, minlength=partition.num_classes)
        without = [c for c in partition.seen if counts[c] == 0]
        if without:
            raise InputError(
                f"seen class {without[0]} ({train.class_names[without[0]]}) has no training image; "
                "leave it out of partition.seen or add images"
            )
        if not 0 <= holdout < 1 or (holdout and val is not None):
            raise InputError(
                f"data.holdout={holdout}: give a share below 1 where data.val=null, and 0 beside a data.val"
            )
        self.readers: dict[str, Reader | None] = {"train": train, "val": val, "test": test, "pool": pool}
        self._held_out = _held_out(train.targets, partition.seen, holdout)
        self.partition = partition
        self.train_transform = train_transform
        self.eval_transform = eval_transform
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.iterations_per_epoch = iterations_per_epoch
        self.num_workers = num_workers
        first = "gallery" if gallery else "calibration"
        self.validation_roles = (first, "val") if pool is None else (first, "pool", "val")
        self.seed = seed

    @property
    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _dataset(
        self, split: str, transform: Transform, classes: Sequence[int] | None = None
    ) -> ReaderDataset:
        held_out = split == "val" and self.readers["val"] is None and bool(self._held_out.any())
        reader = self.readers["train" if held_out else split]
        if reader is None:
            raise InputError(f"data.{split}: no such split was given; name a reader for it")
        wanted = torch.ones(len(reader.targets), dtype=torch.bool)
        if classes is not None:
            wanted = torch.isin(reader.targets, torch.tensor(classes))
        if held_out:
            wanted &= self._held_out
        elif split == "train":
            wanted &= ~self._held_out
        return ReaderDataset(reader, wanted.nonzero()[:, 0], transform, labelled=split != "pool")

    def _loader(self, dataset: ReaderDataset, sampler: Sampler[int], batch_size: int) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _evaluation_loader(self, split: str, classes: Sequence[int] | None = None) -> DataLoader[Batch]:
        dataset = self._dataset(split, self.eval_transform, classes)
        rank, world_size = self._rank_and_world
        if len(dataset) < world_size:
            raise InputError(
                f"data.{split} has {len(dataset)} images for {world_size} processes; use fewer processes"
            )
        return self._loader(dataset, ShardSampler(len(dataset), rank, world_size), self.eval_batch_size)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Seen classes of the training split, augmented."""
        dataset = self._dataset("train", self.train_transform, self.partition.seen)
        rank, world_size = self._rank_and_world
        size = len(dataset)
        length = positions_per_epoch(size, self.batch_size, world_size, self.iterations_per_epoch)
        return self._loader(
            dataset, EndlessSampler(size, length, self.seed, rank, world_size), self.batch_size
        )

    def calibration_dataloader(self) -> DataLoader[Batch]:
        """Seen classes of the training split, evaluation transform."""
        return self._evaluation_loader("train", self.partition.seen)

    def gallery_dataloader(self) -> DataLoader[Batch]:
        """All classes of the training split, evaluation transform."""
        return self._evaluation_loader("train")

    def held_out_dataloader(self) -> DataLoader[Batch]:
        """Seen classes of the validation data: labelled seen images kept out of training."""
        return self._evaluation_loader("val", self.partition.seen)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Gallery or calibration data, the pool if any, validation data: see ``validation_roles``."""
        loaders = {
            "gallery": self.gallery_dataloader,
            "calibration": self.calibration_dataloader,
            "pool": lambda: self._evaluation_loader("pool"),
            "val": lambda: self._evaluation_loader("val"),
        }
        return [loaders[role]() for role in self.validation_roles]

    def test_dataloader(self) -> DataLoader[Batch]:
        """All classes of the test split."""
        return self._evaluation_loader("test")


def _held_out(targets: Tensor, seen: Sequence[int], share: float) -> Tensor:
    """A mask over the training images: that share of every seen class, evenly spaced."""
    mask = torch.zeros(len(targets), dtype=torch.bool)
    for column in seen:
        rows = (targets == column).nonzero()[:, 0]
        count = min(math.ceil(share * len(rows)), len(rows) - 1)
        mask[rows[(torch.arange(count) * len(rows)) // max(count, 1)]] = True
    return mask
