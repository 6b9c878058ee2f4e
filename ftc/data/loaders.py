"""Datasets and loaders that yield whole batches."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ftc.data.cache import StoredImages
from ftc.data.randomness import Draws
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
        # In a worker, default_collate stacks the images in memory shared with the main process.
        image = default_collate([self.load(i) for i in ids.tolist()]).contiguous()
        return {"image": image, "target": self.targets[ids], "id": ids.where(rows != PADDING, PADDING)}


class AugmentedDataset(Dataset[Batch]):
    """Augmented samples of a reader in whole batches, for draws of a stream.

    Args:
        targets: int64 (N,), the reader's labels.
        ids: int64, the reader's rows that are the samples.
        load: function from a row to its image, of whatever kind ``augment`` takes.
        augment: function from images and draws to uint8 (N, channels, H, W).
        seed: seed of the stream.
        rank: index of this process.
    """

    def __init__(
        self,
        targets: Tensor,
        ids: Tensor,
        load: Callable[[int], Any],
        augment: Callable[[list[Any], Draws], Tensor],
        seed: int,
        rank: int = 0,
    ) -> None:
        self.targets = targets
        self.ids = ids
        self.load = load
        self.augment = augment
        self.seed = seed
        self.rank = rank

    def __len__(self) -> int:
        return len(self.ids)

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        ids = self.ids[torch.tensor([draw.sample for draw in draws])]
        positions = [draw.position for draw in draws]
        numbers = Draws(self.seed, positions, positions[0] - self.rank)
        images = self.augment([self.load(i) for i in ids.tolist()], numbers)
        return {
            "image": images.contiguous(),
            "target": self.targets[ids],
            "id": ids,
            "position": torch.tensor(positions),
        }


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


class OccasionalLoader(BatchLoader):
    """A loader that is empty whenever it is not due.

    Args:
        due: function that says, at the beginning of a pass, whether there are any batches.
        args, kwargs: see `BatchLoader`.
    """

    def __init__(self, *args: Any, due: Callable[[], bool], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.due = due

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return super().__iter__() if self.due() else iter(())


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


class Kept:
    """A function from a row to its image that keeps the first images it was asked for, up to a size.

    Args:
        load: function from a row to its image, uint8.
        size: bytes to keep at most.
    """

    def __init__(self, load: Callable[[int], Tensor], size: int) -> None:
        self.load = load
        self.room = size
        self._images: dict[int, Tensor] = {}

    def __call__(self, row: int) -> Tensor:
        image = self._images.get(row)
        if image is None:
            image = self.load(row)
            self.room -= image.numel()
            if self.room >= 0:
                self._images[row] = image
        return image


class EndToEnd:
    """A function from a row of several readers, end to end, to its image.

    Args:
        loads: the same for each reader.
        sizes: their numbers of rows.
    """

    def __init__(self, loads: Sequence[Callable[[int], Any]], sizes: Sequence[int]) -> None:
        self.loads = loads
        self.starts = [0, *accumulate(sizes)][:-1]

    def __call__(self, row: int) -> Any:
        reader = bisect_right(self.starts, row) - 1
        return self.loads[reader](row - self.starts[reader])


def decoded(reader: Reader, transform: Callable[[Any], Tensor], sample: int) -> Tensor:
    """A sample of a reader, decoded and transformed."""
    return transform(reader.decode(sample))


def stored(images: StoredImages, sample: int) -> Tensor:
    """A sample of stored images: uint8 (channels, H, W)."""
    return torch.from_numpy(images[sample]).permute(2, 0, 1)


def normalised(preprocessing: Preprocessing, device: torch.device, batch: Batch) -> Batch:
    """The batch with normalised float32 images on a device."""
    images = batch["image"].to(device, non_blocking=True)
    return {**batch, "image": preprocessing.normalise(images)}


def jittered(preprocessing: Preprocessing, device: torch.device, seed: int, rank: int, batch: Batch) -> Batch:
    """The batch with its augmentation finished on a device, then normalised."""
    positions = batch["position"].tolist()
    draws = Draws(seed, positions, positions[0] - rank)
    images = preprocessing.jittered(batch["image"].to(device, non_blocking=True), draws)
    return {**batch, "image": preprocessing.normalise(images)}
