"""Class-partitioned data for Lightning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Literal

import torch
from attrs import frozen
from lightning.pytorch import LightningDataModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from ftc.data.cache import ImageCache, StoredImages
from ftc.data.loaders import (
    AugmentedDataset,
    Batch,
    BatchLoader,
    EndToEnd,
    Kept,
    OccasionalLoader,
    ReaderDataset,
    StreamLoader,
    decoded,
    jittered,
    normalised,
    stored,
)
from ftc.data.readers import Reader
from ftc.data.sampler import EndlessSampler, ShardSampler, batch_share, positions_per_epoch
from ftc.data.store import as_is, workers
from ftc.data.transforms import Preprocessing
from ftc.errors import InputError
from ftc.partition import ClassPartition

# Resized evaluation images that a process without workers keeps in memory, per split (bytes).
_KEPT = 2**26

_NOTHING_HELD_OUT = (
    "data.holdout: no image is held out of training, since it is 0 or every seen class has a single image or "
    "group; set data.holdout, give more images, or name data.readers.val"
)

# Values of the images that a CPU evaluates at a time: activations of larger batches leave its caches.
_VALUES_AT_A_TIME = 2**19


@frozen
class Loading:
    """The settings of the loaders.

    Attributes:
        batch_size: training images per step, over all processes; a step has the same samples however many
            processes share them.
        eval_batch_size: images per step and process in evaluations; ``auto`` for what suits the device: on
            accelerators twice a process's share of ``batch_size``, on CPUs what their caches hold.
        iterations_per_epoch: steps per epoch, drawn from the endless stream; None for one pass, of which a
            last step of a single image per process is left to the next epoch.
        num_workers: worker processes per loader; ``auto`` for as many as this process has cores, 8 at most.
        seed: seed of the training stream, its order and its augmentation.
        cache: cache of decoded images; None decodes them anew each time. Evaluation is the same either way;
            with a cache training crops from images that were reduced before.
    """

    batch_size: int = 64
    eval_batch_size: int | Literal["auto"] = "auto"
    iterations_per_epoch: int | None = None
    num_workers: int | Literal["auto"] = 0
    seed: int = 0
    cache: ImageCache | None = None


class PartitionedDataModule(LightningDataModule):
    """Loaders over target data of which only the seen classes may be trained on.

    * ``train``: seen classes of the training split, augmented, an endless shuffled stream; images of the
      source domain are among them if there is a ``rehearsal``.
    * ``calibration``: the same images under the evaluation transform, in order.
    * ``gallery``: the training split's images of all other classes under the evaluation transform. They and
      the calibration data give the class means of the nearest-class-mean probe, and serve nothing else.
    * ``pool``: images whose labels are hidden: every target is −1.
    * ``val``, ``test``: all classes. Without a validation split, ``held_out`` takes training images out of
      the loaders above, and ``val`` holds those.

    Validation runs over two to four loaders, whose roles are `validation_roles`: calibration data, gallery
    and pool where there is one, and then the validation data. With neither a validation split nor
    ``held_out`` the test split takes their place, in the role ``test``; it is watched only, and nothing may
    be estimated from it.

    Batches are moved to the device of the trainer's model, or stay on the CPU without a trainer, and are
    normalised there. On a device other than the CPU the last augmentations run there as well.

    Args:
        train: training split of the target domain; absent classes in it reach the gallery only.
        val: validation split, or None.
        test: test split, or None.
        pool: target images to use without labels, or None; the names of its classes do not matter.
        held_out: bool (N,), the training images to hold out in place of a validation split, such as the
            choice of `ftc.data.hold_out`; None for none.
        source: images of the source domain, or None.
        rehearsal: share of the training stream that is images of seen and absent classes from ``source``.
        all_classes: whether absent classes of the training split are trained on as well: an oracle.
        partition: seen, absent and other head columns.
        preprocessing: preprocessing of images, for training and for evaluation.
        gallery_every: a training's validations evaluate the gallery after every so many epochs and at their
            last; outside a training each does. None: never.
        loading: settings of the loaders.

    Attributes:
        validation_roles: the role of each validation loader, in order.
        held_out: bool (N,), the training images that are held out.

    Raises:
        InputError: a reader whose class names are not the head's columns, a seen class without images to
            train on, or ``held_out`` beside a validation split or of another length.
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
        held_out: Tensor | None = None,
        source: Reader | None = None,
        rehearsal: float = 0.0,
        all_classes: bool = False,
        gallery_every: int | None = 1,
        loading: Loading | None = None,
    ) -> None:
        super().__init__()
        for name, reader in (("train", train), ("val", val), ("test", test)):
            if reader is not None and len(reader.class_names) != partition.num_classes:
                raise InputError(
                    f"data.readers.{name} names {len(reader.class_names)} classes, the head has "
                    f"{partition.num_classes} columns; set data.num_classes to the head's width"
                )
        if held_out is None:
            held_out = torch.zeros(len(train.targets), dtype=torch.bool)
        if held_out.shape != train.targets.shape or (val is not None and held_out.any()):
            raise InputError(
                f"held_out has shape {tuple(held_out.shape)} for {len(train.targets)} training images; give "
                "one value an image, and no validation split beside it"
            )
        counts = torch.bincount(train.targets[~held_out], minlength=partition.num_classes)
        without = [c for c in partition.seen if counts[c] == 0]
        if without:
            raise InputError(
                f"seen class {without[0]} ({train.class_names[without[0]]}) has no training image; "
                "leave it out of partition.seen or add images"
            )
        self.readers: dict[str, Reader | None] = {
            "train": train,
            "val": val,
            "test": test,
            "pool": pool,
            "source": source,
        }
        self.rehearsal = rehearsal
        self._trained = (*partition.seen, *partition.absent) if all_classes else partition.seen
        self.held_out = held_out
        self.partition = partition
        self.preprocessing = preprocessing
        self.loading = loading or Loading()
        self._stored: dict[tuple[str, bool], StoredImages] = {}
        self._kept: dict[str, Kept] = {}
        self._stream: StreamLoader | None = None
        self._resumed: dict[str, int] | None = None
        self.gallery_every = gallery_every
        others = torch.ones(partition.num_classes, dtype=torch.bool)
        others[list(partition.seen)] = False
        self._gallery_classes = (others & (counts > 0)).nonzero()[:, 0].tolist()
        gallery = ("gallery",) if gallery_every and self._gallery_classes else ()
        last = "test" if val is None and not held_out.any() and test is not None else "val"
        self.validation_roles = ("calibration", *gallery, *(() if pool is None else ("pool",)), last)

    @property
    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def _num_workers(self) -> int:
        return workers(self.loading.num_workers, self.trainer.num_devices if self.trainer else 1)

    def _rows(self, split: str, classes: Sequence[int] | None) -> tuple[str, Reader, Tensor]:
        """The reader of a split's images, its key, and the rows of the given classes, all for None."""
        held_out = split == "val" and self.readers["val"] is None and bool(self.held_out.any())
        source = "train" if held_out else split
        reader = self.readers[source]
        if reader is None and split == "val":
            raise InputError(_NOTHING_HELD_OUT)
        if reader is None:
            raise InputError(f"data.readers.{split}: no such split was given; name a reader for it")
        wanted = torch.ones(len(reader.targets), dtype=torch.bool)
        if classes is not None:
            wanted = torch.isin(reader.targets, torch.tensor(classes))
        if held_out:
            wanted &= self.held_out
        elif split == "train":
            wanted &= ~self.held_out
        return source, reader, wanted.nonzero()[:, 0]

    def _stored_images(self, split: str, reader: Reader, rows: Tensor | None = None) -> StoredImages:
        """The reader's images in the cache: for training if ``rows`` are given, otherwise for evaluation."""
        assert self.loading.cache is not None
        augmented = rows is not None
        if (split, augmented) not in self._stored:
            form = self.preprocessing.stored_for_training if augmented else self.preprocessing.stored
            self._stored[split, augmented] = self.loading.cache.store(reader, form, rows, self._num_workers)
        return self._stored[split, augmented]

    def _evaluated_image(self, split: str, reader: Reader) -> Callable[[int], Tensor]:
        """The function from a row to its image (channels, H, W), uint8; all loaders of a split share it."""
        if self.loading.cache is not None:
            return partial(stored, self._stored_images(split, reader))
        load = partial(decoded, reader, self.preprocessing.resized)
        # Workers would each keep images of their own.
        return load if self._num_workers else self._kept.setdefault(split, Kept(load, _KEPT))

    def _loader_arguments(self, finish: Callable[[Batch], Batch]) -> dict[str, Any]:
        return {
            "collate_fn": as_is,
            "num_workers": self._num_workers,
            "persistent_workers": self._num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            "finish": finish,
        }

    def _eval_batch_size(self) -> int:
        if self.loading.eval_batch_size != "auto":
            return self.loading.eval_batch_size
        if self._device.type == "cpu":
            return max(4, _VALUES_AT_A_TIME // math.prod(self.preprocessing.input_size))
        return 2 * batch_share(self.loading.batch_size, self._rank_and_world[1])

    def _evaluation_loader(
        self, split: str, classes: Sequence[int] | None = None, due: Callable[[], bool] | None = None
    ) -> BatchLoader:
        source, reader, rows = self._rows(split, classes)
        load = self._evaluated_image(source, reader)
        dataset = ReaderDataset(reader.targets, rows, load, labelled=split != "pool")
        rank, world_size = self._rank_and_world
        if not len(dataset):
            which = "" if classes is None else " of the classes that it is for"
            raise InputError(f"data.readers.{source}: no image{which} is in it; add some")
        if len(dataset) < world_size:
            raise InputError(
                f"data.readers.{split} has {len(dataset)} images for {world_size} processes; "
                "use fewer processes"
            )
        in_step = self.trainer is not None and isinstance(self.trainer.strategy, ModelParallelStrategy)
        arguments = {
            "sampler": ShardSampler(len(dataset), rank, world_size, padded=in_step),
            "batch_size": self._eval_batch_size(),
            **self._loader_arguments(partial(normalised, self.preprocessing, self._device)),
        }
        if due is not None:
            return OccasionalLoader(dataset, due=due, **arguments)
        return BatchLoader(dataset, **arguments)

    @property
    def num_trained(self) -> int:
        """The number of images that are trained on."""
        return len(self._rows("train", self._trained)[2])

    @property
    def trained_counts(self) -> Tensor:
        """The images of the training split that are trained on, by column: int64 (C,)."""
        _, reader, rows = self._rows("train", self._trained)
        return torch.bincount(reader.targets[rows], minlength=self.partition.num_classes)

    def _trained_images(self) -> tuple[Tensor, list[Tensor], Callable[[int], Any]]:
        """What the training stream draws from, the target's images first.

        Returns:
            Labels of the readers, end to end; the rows of each that are drawn; and the function from a row to
            its image.
        """
        kinds = [("train", self._trained)]
        if self.rehearsal:
            kinds.append(("source", (*self.partition.seen, *self.partition.absent)))
        found = [self._rows(split, classes) for split, classes in kinds]
        if not all(len(rows) for _, _, rows in found):
            raise InputError("data.readers.source: has no image of a class to rehearse; name one that has")
        loads: list[Callable[[int], Any]] = [
            reader.decode
            if self.loading.cache is None
            else self._stored_images(split, reader, rows).__getitem__
            for split, reader, rows in found
        ]
        sizes = [len(reader.targets) for _, reader, _ in found]
        starts = [0, *accumulate(sizes)]
        drawn = [rows + start for (_, _, rows), start in zip(found, starts, strict=False)]
        targets = torch.cat([reader.targets for _, reader, _ in found])
        return targets, drawn, loads[0] if len(loads) == 1 else EndToEnd(loads, sizes)

    def train_dataloader(self) -> StreamLoader:
        """The loader of the seen classes of the training split, augmented, and of what is rehearsed."""
        prepare, loading, device = self.preprocessing, self.loading, self._device
        targets, rows, load = self._trained_images()
        rank, world_size = self._rank_and_world
        here = device.type != "cpu"
        augment = prepare.cropped if here else prepare.augmented
        dataset = AugmentedDataset(targets, torch.cat(rows), load, augment, loading.seed, rank)
        size, others = len(rows[0]), sum(map(len, rows[1:]))
        # One pass is one over the target's images.
        stream = round(size / (1 - self.rehearsal))
        length = positions_per_epoch(stream, loading.batch_size, world_size, loading.iterations_per_epoch)
        finish = (
            partial(jittered, prepare, device, loading.seed, rank)
            if here
            else partial(normalised, prepare, device)
        )
        self._stream = StreamLoader(
            dataset,
            sampler=EndlessSampler(size, length, loading.seed, rank, world_size, others, self.rehearsal),
            batch_size=batch_share(loading.batch_size, world_size),
            **self._loader_arguments(finish),
        )
        if self._resumed is not None:
            self._stream.load_state_dict(self._resumed)
            self._resumed = None
        return self._stream

    # Lightning keeps the loader's own state in checkpoints as well, but does not restore it if something,
    # such as a schedule, asked for the length of an epoch before the loops were restored.

    def state_dict(self) -> dict[str, Any]:
        """The position of the training stream."""
        return {} if self._stream is None else self._stream.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next training loader go on from that position."""
        self._resumed = state_dict or None

    def calibration_dataloader(self) -> BatchLoader:
        """The loader of the seen classes of the training split, under the evaluation transform."""
        return self._evaluation_loader("train", self.partition.seen)

    def gallery_dataloader(self) -> BatchLoader:
        """The loader of all other classes of the training split; empty where the gallery is not due."""
        return self._evaluation_loader("train", self._gallery_classes, self._gallery_due)

    def _gallery_due(self) -> bool:
        trainer = self.trainer
        if trainer is None or trainer.state.fn != "fit":
            return True
        assert self.gallery_every is not None
        epoch = trainer.current_epoch + 1
        following = epoch + (trainer.check_val_every_n_epoch or 1)
        last = 0 <= (trainer.max_epochs or -1) < following or trainer.global_step == trainer.max_steps
        return last or epoch % self.gallery_every == 0

    def held_out_dataloader(self) -> BatchLoader:
        """The loader of V: the seen classes of the validation data, which no training sees.

        Raises:
            InputError: no images are held out.
        """
        return self._evaluation_loader("val", self.partition.seen)

    def val_dataloader(self) -> list[BatchLoader]:
        """The loaders of calibration data, of gallery and pool if any, and of validation data.

        Their roles are `validation_roles`.
        """
        loaders = {
            "gallery": self.gallery_dataloader,
            "calibration": self.calibration_dataloader,
            "pool": lambda: self._evaluation_loader("pool"),
            "val": lambda: self._evaluation_loader("val"),
            "test": self.test_dataloader,
        }
        return [loaders[role]() for role in self.validation_roles]

    def test_dataloader(self) -> BatchLoader:
        """The loader of all classes of the test split."""
        return self._evaluation_loader("test")
