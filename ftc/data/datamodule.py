"""Class-partitioned data for Lightning."""

from __future__ import annotations

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


class ReaderDataset(Dataset[Batch]):
    """Samples of a reader, transformed."""

    def __init__(self, reader: Reader, ids: Tensor, transform: Transform) -> None:
        self.reader = reader
        self.ids = ids.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Batch:
        sample = self.ids[index]
        image = self.transform(self.reader.decode(sample))
        return {"image": image, "target": self.reader.targets[sample], "id": torch.tensor(sample)}


class PartitionedDataModule(LightningDataModule):
    """Loaders over target data of which only the seen classes may be trained on.

    * ``train``: seen classes of the training split, augmented, an endless shuffled stream.
    * ``calibration``: the same images, evaluation transform, in order.
    * ``gallery``: the training split's images of *all* classes, evaluation transform. Its seen part is the
      calibration data; the rest serves the nearest-class-mean probe only.
    * ``val``, ``test``: all classes.

    Validation runs over two loaders, `validation_roles` names them: the gallery (or, with ``gallery=False``,
    the calibration data) and then the validation split.

    Args:
        train: training split of the target domain; absent classes in it reach the gallery only.
        val: validation split, or None.
        test: test split, or None.
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
        InputError: a reader whose class names are not the head's columns, or a seen class without images.
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
        self.readers: dict[str, Reader | None] = {"train": train, "val": val, "test": test}
        self.partition = partition
        self.train_transform = train_transform
        self.eval_transform = eval_transform
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.iterations_per_epoch = iterations_per_epoch
        self.num_workers = num_workers
        self.validation_roles = ("gallery" if gallery else "calibration", "val")
        self.seed = seed

    @property
    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _dataset(
        self, split: str, transform: Transform, classes: Sequence[int] | None = None
    ) -> ReaderDataset:
        reader = self.readers[split]
        if reader is None:
            raise InputError(f"data.{split}: no such split was given; name a reader for it")
        targets = reader.targets
        wanted = torch.ones(len(targets), dtype=torch.bool)
        if classes is not None:
            wanted = torch.isin(targets, torch.tensor(classes))
        return ReaderDataset(reader, wanted.nonzero()[:, 0], transform)

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

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Gallery or calibration data, then the validation split: see ``validation_roles``."""
        first = self.gallery_dataloader if "gallery" in self.validation_roles else self.calibration_dataloader
        return [first(), self._evaluation_loader("val")]

    def test_dataloader(self) -> DataLoader[Batch]:
        """All classes of the test split."""
        return self._evaluation_loader("test")
