"""Predictions of a deployed model, as a stream (no torch, unless the model wants it)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from PIL import Image

from ftc.data.decode import UnreadableImage, decode_image
from ftc.errors import InputError
from ftc.export.backends import Device, load_backend
from ftc.export.pixels import resized

# What an image may be given as: a file, Pillow's image, or pixels, uint8 (H, W) or (H, W, 3).
ImageLike = Path | str | Image.Image | np.ndarray


@frozen
class Prediction:
    """The answer to one image.

    Attributes:
        file: the file; None for an image that is none.
        labels: class names, the most probable first; empty for an image that cannot be read.
        probabilities: their softmax probabilities.
        group: ``seen``, ``absent`` or ``others``: the group of the first label.
        margin: the leading logit of seen and other columns minus that of absent ones, as deployed; negative
            where an absent class leads, None without absent classes.
        flips_at: the γ at which the answer would come from the other side, in logits of the run, where γ is
            `ftc.export.facts.Facts.gamma` now.
        error: why the image cannot be read; None where it can.
    """

    file: str | None
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    group: str | None = None
    margin: float | None = None
    flips_at: float | None = None
    error: str | None = None

    def row(self, top_k: int) -> dict[str, Any]:
        """The prediction as a flat row, with the same columns for every image.

        Args:
            top_k: how many labels a row has.
        """
        answers: dict[str, Any] = {}
        for k in range(top_k):
            suffix = "" if k == 0 else f"_{k + 1}"
            known = k < len(self.labels)
            answers[f"label{suffix}"] = self.labels[k] if known else None
            answers[f"probability{suffix}"] = self.probabilities[k] if known else None
        side = {"group": self.group, "margin": self.margin, "flips_at": self.flips_at}
        return {"file": self.file, **answers, **side, "error": self.error}


class Predictor:
    """A deployed model that answers for image files, Pillow's images and pixels.

    Files are decoded as in training, in threads beside the model, and in constant memory.

    Args:
        model: a folder of ``ftc.deploy``, its ``.onnx`` file, or a finished run's folder.
        device: where to compute; ``auto`` for an accelerator where there is one.
        batch_size: images that the model is given at a time.
        num_workers: threads that decode.

    Attributes:
        facts: what the model says of itself: class names, partition, γ, preprocessing.
        digest: SHA-256 of the file of its weights.

    Raises:
        InputError: no model there, one that is damaged or says nothing of itself, or a missing package.
    """

    def __init__(
        self, model: Path | str, device: Device = "auto", batch_size: int = 32, num_workers: int = 4
    ) -> None:
        backend = load_backend(Path(model), device)
        self.facts, self.digest, self._run = backend.facts, backend.digest, backend.run
        self.batch_size = batch_size
        self.num_workers = num_workers
        groups = np.array(self.facts.classes().groups())
        self._groups, self._is_absent = groups, groups == "absent"
        self._preprocessing = self.facts.preprocessing.model_dump()

    def __call__(self, images: Iterable[ImageLike], top_k: int = 5) -> list[Prediction]:
        """The predictions for images, in their order.

        Args:
            images: what to look at.
            top_k: how many labels to give each.
        """
        return list(self.stream(images, top_k))

    def stream(self, images: Iterable[ImageLike], top_k: int = 5) -> Iterator[Prediction]:
        """The same one by one; an image that cannot be read has an ``error`` instead of labels.

        Raises:
            InputError: fewer than one label is asked for.
        """
        if top_k < 1:
            raise InputError(f"top_k={top_k}: ask for at least 1 label")
        with ThreadPoolExecutor(self.num_workers) as pool:
            waiting: deque[tuple[ImageLike, Future[np.ndarray]]] = deque()
            rest = iter(images)
            while True:
                # Threads decode the next batches while the model is at work on this one.
                for image in islice(rest, 3 * self.batch_size - len(waiting)):
                    waiting.append((image, pool.submit(self._pixels, image)))
                if not waiting:
                    return
                batch = [waiting.popleft() for _ in range(min(self.batch_size, len(waiting)))]
                yield from self._answers(batch, top_k)

    def _pixels(self, image: ImageLike) -> np.ndarray:
        if isinstance(image, (str, Path)):
            image = decode_image(Path(image), self.facts.preprocessing.mode)
        elif isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        return resized(image.convert(self.facts.preprocessing.mode), **self._preprocessing)

    def _answers(self, batch: list[tuple[ImageLike, Future[np.ndarray]]], top_k: int) -> Iterator[Prediction]:
        pixels: list[np.ndarray] = []
        errors: list[str | None] = []
        for _, future in batch:
            try:
                pixels.append(future.result())
                errors.append(None)
            except UnreadableImage as error:
                errors.append(error.reason)
        answered = iter(self._answered(self._run(np.stack(pixels)), top_k) if pixels else ())
        for (image, _), reason in zip(batch, errors, strict=True):
            file = str(image) if isinstance(image, (str, Path)) else None
            yield Prediction(file, **(next(answered) if reason is None else {"error": reason}))

    def _answered(self, logits: np.ndarray, top_k: int) -> Iterator[dict[str, Any]]:
        """The fields of the predictions for logits, float32 (N, C)."""
        z = logits.astype(np.float64)
        odds = np.exp(z - z.max(1, keepdims=True))
        probabilities = odds / odds.sum(1, keepdims=True)
        order = np.argsort(-z, axis=1, kind="stable")[:, :top_k]
        margins: list[float | None] = [None] * len(z)
        if self._is_absent.any() and not self._is_absent.all():
            margins = (z[:, ~self._is_absent].max(1) - z[:, self._is_absent].max(1)).tolist()
        for row, columns in enumerate(order):
            margin = margins[row]
            yield {
                "labels": tuple(self.facts.class_names[column] for column in columns),
                "probabilities": tuple(probabilities[row, columns].tolist()),
                "group": str(self._groups[columns[0]]),
                "margin": margin,
                "flips_at": None if margin is None else self.facts.gamma + self.facts.temperature * margin,
            }
