"""Datasets and loaders that yield whole batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ftc.data.cache import StoredImages
from ftc.data.randomness import seed_transforms, undisturbed
from ftc.data.readers import Reader
from ftc.data.sampler import PADDING, Draw, EndlessSampler
from ftc.data.transforms import Preprocessing


class Batch(TypedDict, total=False):
    """A batch of a loader.

    Where processes need equally many batches, an evaluation batch may repeat an image as padding, which no
    result counts.

    Attributes:
        image: (N, channels, H, W); uint8 from datasets, float32 from loaders.
        target: int64 (N,), head columns; `UNLABELLED` where labels are hidden.
        id: int64 (N,), rows of the reader; `PADDING` for a repeated image.
        position: int64 (N,), positions in the stream; in training batches only.
    """

    image: Tensor
    target: Tensor
    id: Tensor
    position: Tensor


UNLABELLED = -1


class ReaderDataset(Dataset[Batch]):
    """Samples of a reader in whole batches with uint8 images.

    Args:
        targets: int64 (N,), the reader's labels.
        ids: int64, the reader's rows that are the samples.
        load: function from a row to its image (channels, H, W), uint8.
        labelled: False hides the labels: every target is −1.
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
        # In a worker, default_collate stacks the images in memory shared with the main process.
        image = default_collate(images).contiguous()
        return {"image": image, "target": self.targets[ids], "id": ids}


class AugmentedDataset(ReaderDataset):
    """A `ReaderDataset` for draws of a stream; random numbers in ``load`` depend on seed and position alone.

    Args:
        seed: seed of the stream.
        targets, ids, load: see `ReaderDataset`.
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
    """A loader whose main process finishes the batches of its workers.

    Workers thus send uint8 images, a quarter of the bytes of float32. Lightning's hooks are not used, so that
    everyone who iterates gets the same batches.

    Args:
        finish: function from a worker's batch to the one that the loader yields.
        args, kwargs: further arguments of torch's ``DataLoader``.
    """

    def __init__(self, *args: Any, finish: Callable[[Batch], Batch], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.finish = finish

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return map(self.finish, super().__iter__())


class StreamLoader(BatchLoader):
    """A loader of an endless stream that can go on where another loader stopped."""

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
        """The epoch to go on in, and the number of its batches that have been taken."""
        if self._taken == len(self):
            return {"epoch": self.sampler.epoch + 1, "batches": 0}
        return {"epoch": self.sampler.epoch, "batches": self._taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration, and no other, go on from ``state``."""
        assert self.batch_size is not None
        self._resumed_at = self._taken = state["batches"]
        self.sampler.resume(state["epoch"], self._taken * self.batch_size)


def decoded(reader: Reader, transform: Callable[[Any], Tensor], sample: int) -> Tensor:
    """A sample of a reader, decoded and transformed."""
    return transform(reader.decode(sample))


def stored(images: StoredImages, transform: Callable[[Any], Tensor], sample: int) -> Tensor:
    """A sample of stored images, read and transformed."""
    return transform(images[sample])


def finished(preprocessing: Preprocessing, device: torch.device, seed: int | None, batch: Batch) -> Batch:
    """The batch with normalised float32 images on a device; with a seed they are augmented there before."""
    images = batch["image"].to(device, non_blocking=True)
    if seed is not None:
        with undisturbed():
            seed_transforms(seed, int(batch["position"][0]))
            images = preprocessing.jittered(images)
    return {**batch, "image": preprocessing.normalise(images)}
