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


def decoded(reader: Reader, transform: Callable[[Any], Tensor], sample: int) -> Tensor:
    return transform(reader.decode(sample))


def stored(images: StoredImages, transform: Callable[[Any], Tensor], sample: int) -> Tensor:
    return transform(images[sample])


def finished(preprocessing: Preprocessing, device: torch.device, seed: int | None, batch: Batch) -> Batch:
    """A batch whose images are what the model takes, where it takes them; augmented there with a seed."""
    images = batch["image"].to(device, non_blocking=True)
    if seed is not None:
        with undisturbed():
            seed_transforms(seed, int(batch["position"][0]))
            images = preprocessing.jittered(images)
    return {**batch, "image": preprocessing.normalise(images)}
