"""Class-partitioned data for Lightning."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypedDict

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ftc.data.cache import ImageCache, StoredImages
from ftc.data.checks import as_is
from ftc.data.randomness import seed_transforms, undisturbed
from ftc.data.readers import Reader
from ftc.data.sampler import PADDING, Draw, EndlessSampler, ShardSampler, batch_share, positions_per_epoch
from ftc.data.transforms import Preprocessing
from ftc.errors import InputError
from ftc.partition import ClassPartition


class Batch(TypedDict, total=False):
    """What loaders yield.

    Where processes have to keep step, an evaluation batch may hold an image again, which counts for nothing.

    Attributes:
        image: (N, channels, H, W).
        target: int64 (N,), head columns.
        id: int64 (N,), samples of the reader; `PADDING` for an image that is there again.
        position: int64 (N,), in the stream; of training batches only.
    """

    image: Tensor
    target: Tensor
    id: Tensor
    position: Tensor


UNLABELLED = -1


class ReaderDataset(Dataset[Batch]):
    """Samples of a reader in whole batches, images uint8; without labels (−1 instead) unless ``labelled``.

    Args:
        targets: int64 (N,), the reader's.
        ids: the samples.
        load: sample → uint8 (channels, H, W).
        labelled: False hides the labels.
    """

    def __init__(
        self, targets: Tensor, ids: Tensor, load: Callable[[int], Tensor], labelled: bool = True
    ) -> None:
        self.ids = ids
        self.load = load
        self.targets = targets if labelled else torch.full_like(targets, UNLABELLED)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = torch.tensor(indices)
        ids = self.ids[rows]
        batch = self._batch(ids, [self.load(i) for i in ids.tolist()])
        return {**batch, "id": ids.where(rows != PADDING, PADDING)}

    def _batch(self, ids: Tensor, images: list[Tensor]) -> Batch:
        # In a worker this stacks them in memory that it shares with the main process.
        image = default_collate(images).contiguous()
        return {"image": image, "target": self.targets[ids], "id": ids}


class AugmentedDataset(ReaderDataset):
    """The same for draws of a stream: what ``load`` draws at random depends on seed and position alone.

    Args:
        seed: of the stream; the others are `ReaderDataset`'s.
    """

    def __init__(self, seed: int, targets: Tensor, ids: Tensor, load: Callable[[int], Tensor]) -> None:
        super().__init__(targets, ids, load)
        self.seed = seed

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:  # type: ignore[override]
        positions = [draw.position for draw in draws]
        ids = self.ids[torch.tensor([draw.sample for draw in draws])]
        images = []
        with undisturbed():
            for sample, position in zip(ids.tolist(), positions, strict=True):
                seed_transforms(self.seed, position)
                images.append(self.load(sample))
        return {**self._batch(ids, images), "position": torch.tensor(positions)}


class BatchLoader(DataLoader[Batch]):
    """A loader that finishes its workers' batches in the main process: a quarter of the bytes between them.

    Not in Lightning's hooks, so that batches are the same for whoever iterates.
    """

    def __init__(self, *args: Any, finish: Callable[[Batch], Batch], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.finish = finish

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return map(self.finish, super().__iter__())


class StreamLoader(BatchLoader):
    """The loader of an endless stream, which can go on where another one was."""

    sampler: EndlessSampler

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taken = 0
        self._resumed_at = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        start, self._resumed_at = self._resumed_at, 0
        return self._counted(start, super().__iter__())

    def _counted(self, start: int, batches: Iterator[Batch]) -> Iterator[Batch]:
        for self._taken, batch in enumerate(batches, start + 1):
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch to go on in, and how many of its batches have been taken."""
        if self._taken == len(self):
            return {"epoch": self.sampler.epoch + 1, "batches": 0}
        return {"epoch": self.sampler.epoch, "batches": self._taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration, and no other, go on from there."""
        assert self.batch_size is not None
        self._resumed_at = self._taken = state["batches"]
        self.sampler.resume(state["epoch"], self._taken * self.batch_size)


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
    ``gallery=False``, the calibration data), the pool where there is one, and then the validation data. With
    neither a validation split nor ``holdout`` the test split is watched in its place, under its own name;
    nothing may be estimated from it.

    Images are normalised, and with a cache also augmented as far as batches allow, where the trainer's model
    is: batches lie there. Without a trainer that is the CPU.

    Args:
        train: training split of the target domain; absent classes in it reach the gallery only.
        val: validation split, or None.
        test: test split, or None.
        pool: target images to be used without labels, or None; the names of its classes do not matter.
        holdout: share of each seen class's training images to hold out in place of a validation split; at
            least one image of a class stays in training. The choice depends on nothing but their number.
        partition: seen, absent and other head columns.
        preprocessing: of images, for training and for everything else.
        cache: decodes every image once and keeps it; None decodes anew each time. Evaluation is the same
            either way; training crops from images already made smaller.
        batch_size: training images a step, over all processes: the same samples make a step however many
            processes share them.
        eval_batch_size: images a step and process elsewhere; by default ``batch_size``.
        iterations_per_epoch: steps an "epoch", drawn from the endless stream; None for one pass.
        num_workers: worker processes a loader.
        gallery: whether validation passes over all classes of the training split.
        seed: of the training stream, its order and its augmentation.

    Raises:
        InputError: a reader whose class names are not the head's columns, a seen class without images, or
            ``holdout`` beside a validation split or outside [0, 1).
    """

    def __init__(
        self,
        train: Reader,
        partition: ClassPartition,
        preprocessing: Preprocessing,
        *,
        val: Reader | None = None,
        test: Reader | None = None,
        pool: Reader | None = None,
        holdout: float = 0.0,
        cache: ImageCache | None = None,
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
                    f"data.readers.{name} names {len(reader.class_names)} classes, the head has "
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
                f"data.holdout={holdout}: give a share below 1 with data.readers.val=null, and 0 beside one"
            )
        self.readers: dict[str, Reader | None] = {"train": train, "val": val, "test": test, "pool": pool}
        self._held_out = _held_out(train.targets, partition.seen, holdout)
        self.partition = partition
        self.preprocessing = preprocessing
        self.cache = cache
        self._stored: dict[tuple[str, bool], StoredImages] = {}
        self._stream: StreamLoader | None = None
        self._resumed: dict[str, int] | None = None
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.iterations_per_epoch = iterations_per_epoch
        self.num_workers = num_workers
        first = "gallery" if gallery else "calibration"
        last = "test" if val is None and not holdout and test is not None else "val"
        self.validation_roles = (first, last) if pool is None else (first, "pool", last)
        self.seed = seed

    @property
    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _dataset(
        self, split: str, classes: Sequence[int] | None = None, augmented: bool = False
    ) -> ReaderDataset:
        held_out = split == "val" and self.readers["val"] is None and bool(self._held_out.any())
        source = "train" if held_out else split
        reader = self.readers[source]
        if reader is None:
            raise InputError(f"data.readers.{split}: no such split was given; name a reader for it")
        wanted = torch.ones(len(reader.targets), dtype=torch.bool)
        if classes is not None:
            wanted = torch.isin(reader.targets, torch.tensor(classes))
        if held_out:
            wanted &= self._held_out
        elif split == "train":
            wanted &= ~self._held_out
        ids = wanted.nonzero()[:, 0]
        load = self._load(source, reader, ids, augmented)
        if augmented:
            return AugmentedDataset(self.seed, reader.targets, ids, load)
        return ReaderDataset(reader.targets, ids, load, labelled=split != "pool")

    def _load(self, split: str, reader: Reader, ids: Tensor, augmented: bool) -> Callable[[int], Tensor]:
        """Sample → uint8 (channels, H, W), decoded or from the cache."""
        prepare = self.preprocessing
        if self.cache is None:
            return partial(_decoded, reader, prepare.augmented if augmented else prepare.resized)
        if (split, augmented) not in self._stored:
            form = prepare.stored_for_training if augmented else prepare.stored
            # Evaluated images are stored for all loaders of the split at once.
            rows = ids if augmented else None
            self._stored[split, augmented] = self.cache.store(reader, form, rows, self.num_workers)
        if not augmented:
            transform = prepare.from_stored
        elif self._device.type == "cpu":
            # In the workers, one by one: whole batches of floats would not fit the processors' caches.
            transform = prepare.augmented_stored
        else:
            transform = prepare.cropped
        return partial(_stored, self._stored[split, augmented], transform)

    def _loading(self, batch_size: int, augmented_here: bool = False) -> dict[str, Any]:
        seed = self.seed if augmented_here else None
        return {
            "batch_size": batch_size,
            "collate_fn": as_is,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "finish": partial(_finished, self.preprocessing, self._device, seed),
        }

    def _evaluation_loader(self, split: str, classes: Sequence[int] | None = None) -> BatchLoader:
        dataset = self._dataset(split, classes)
        rank, world_size = self._rank_and_world
        if len(dataset) < world_size:
            raise InputError(
                f"data.readers.{split} has {len(dataset)} images for {world_size} processes; "
                "use fewer processes"
            )
        in_step = self.trainer is not None and isinstance(self.trainer.strategy, ModelParallelStrategy)
        sampler = ShardSampler(len(dataset), rank, world_size, padded=in_step)
        return BatchLoader(dataset, sampler=sampler, **self._loading(self.eval_batch_size))

    def train_dataloader(self) -> StreamLoader:
        """Seen classes of the training split, augmented."""
        dataset = self._dataset("train", self.partition.seen, augmented=True)
        rank, world_size = self._rank_and_world
        share = batch_share(self.batch_size, world_size)
        size = len(dataset)
        length = positions_per_epoch(size, self.batch_size, world_size, self.iterations_per_epoch)
        sampler = EndlessSampler(size, length, self.seed, rank, world_size)
        augmented_here = self.cache is not None and self._device.type != "cpu"
        self._stream = StreamLoader(dataset, sampler=sampler, **self._loading(share, augmented_here))
        if self._resumed is not None:
            self._stream.load_state_dict(self._resumed)
            self._resumed = None
        return self._stream

    # Lightning keeps the loader's own state in checkpoints as well, but does not bring it back where somebody
    # asked for the length of an epoch before the loops were restored, as schedules do.

    def state_dict(self) -> dict[str, Any]:
        """Where the training stream is."""
        return {} if self._stream is None else self._stream.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next training loader go on from there."""
        self._resumed = state_dict or None

    def calibration_dataloader(self) -> BatchLoader:
        """Seen classes of the training split, evaluation transform."""
        return self._evaluation_loader("train", self.partition.seen)

    def gallery_dataloader(self) -> BatchLoader:
        """All classes of the training split, evaluation transform."""
        return self._evaluation_loader("train")

    def held_out_dataloader(self) -> BatchLoader:
        """Seen classes of the validation data: labelled seen images kept out of training.

        Raises:
            InputError: no such images were kept.
        """
        if self.readers["val"] is None and not self._held_out.any():
            raise InputError("no images are held out of training; set data.holdout, or name data.readers.val")
        return self._evaluation_loader("val", self.partition.seen)

    def val_dataloader(self) -> list[BatchLoader]:
        """Gallery or calibration data, the pool if any, validation data: see ``validation_roles``."""
        loaders = {
            "gallery": self.gallery_dataloader,
            "calibration": self.calibration_dataloader,
            "pool": lambda: self._evaluation_loader("pool"),
            "val": lambda: self._evaluation_loader("val"),
            "test": self.test_dataloader,
        }
        return [loaders[role]() for role in self.validation_roles]

    def test_dataloader(self) -> BatchLoader:
        """All classes of the test split."""
        return self._evaluation_loader("test")


def _decoded(reader: Reader, transform: Callable[[Any], Tensor], sample: int) -> Tensor:
    return transform(reader.decode(sample))


def _stored(images: StoredImages, transform: Callable[[Any], Tensor], sample: int) -> Tensor:
    return transform(images[sample])


def _finished(preprocessing: Preprocessing, device: torch.device, seed: int | None, batch: Batch) -> Batch:
    """A batch whose images are what the model takes, where it takes them; augmented there with a seed."""
    images = batch["image"].to(device, non_blocking=True)
    if seed is not None:
        with undisturbed():
            seed_transforms(seed, int(batch["position"][0]))
            images = preprocessing.jittered(images)
    return {**batch, "image": preprocessing.normalise(images)}


def _held_out(targets: Tensor, seen: Sequence[int], share: float) -> Tensor:
    """A mask over the training images: that share of every seen class, evenly spaced."""
    mask = torch.zeros(len(targets), dtype=torch.bool)
    for column in seen:
        rows = (targets == column).nonzero()[:, 0]
        count = min(math.ceil(share * len(rows)), len(rows) - 1)
        mask[rows[(torch.arange(count) * len(rows)) // max(count, 1)]] = True
    return mask
