"""The interface of a format that models are deployed in."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from ftc.errors import require
from ftc.export.facts import Facts
from ftc.export.pixels import opened, resized
from ftc.models import Classifier


@frozen(eq=False)
class Deployment:
    """A model that is to be deployed.

    Attributes:
        classifier: in eval mode, γ and temperature in its head.
        facts: what it says of itself.
    """

    classifier: Classifier
    facts: Facts

    def graph(self) -> WholeModel:
        """The model as formats have it that carry their own arithmetic."""
        return WholeModel(self.classifier, self.facts).eval()

    def example(self) -> Tensor:
        """Two images as the graph takes them."""
        channels, height, width = self.facts.preprocessing.input_size
        if self.facts.input == "uint8":
            return torch.zeros(2, height, width, channels, dtype=torch.uint8)
        return torch.zeros(2, channels, height, width)


class WholeModel(nn.Module):
    """Normalisation, classifier and softmax: images → logits (N, C) and probabilities (N, C), float32.

    Args:
        classifier: gives the logits.
        facts: say what images are.
    """

    # Torch 2.6 names steps of the graph mean as well.
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, classifier: Classifier, facts: Facts) -> None:
        super().__init__()
        self.classifier = classifier
        self.normalises = facts.input == "uint8"
        for name, values in (
            ("pixel_mean", facts.preprocessing.mean),
            ("pixel_std", facts.preprocessing.std),
        ):
            self.register_buffer(name, torch.tensor(values).reshape(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images, uint8 (N, H, W, channels) or normalised float32 (N, channels, H, W)."""
        if self.normalises:
            images = (images.permute(0, 3, 1, 2).float() / 255 - self.pixel_mean) / self.pixel_std
        logits = self.classifier(images)
        return logits, logits.softmax(-1)


class Format(ABC):
    """A format. Whoever adds one writes a file beside this one and names it in ``FORMATS``.

    Attributes:
        name: its name on the command line.
        title: its name in print.
        files: what a folder of this format has; the first is what loads it.
        needs: packages of the extra ``export`` that writing and verifying it take.
        exact: whether its labels must be those of the model; not so where numbers are rounded.
        predicts: whether `ftc.export.Predictor` takes a folder of it.
    """

    name: str
    title: str
    files: tuple[str, ...]
    needs: tuple[str, ...] = ()
    exact: bool = True
    predicts: bool = True

    @property
    def file(self) -> str:
        """The file that is loaded."""
        return self.files[0]

    def check_installed(self) -> None:
        """Refuse to begin where a package is missing.

        Raises:
            InputError: names the package and the extra.
        """
        for package in self.needs:
            require(package, "export", f"formats={self.name}")

    def obstacle(self, classifier: Classifier) -> str | None:
        """Why the format cannot express a model, in words; None where it can."""
        return None

    @abstractmethod
    def write(self, deployment: Deployment, folder: Path) -> None:
        """Write the model into a folder, which may hold other formats already."""

    @abstractmethod
    def recipe(self, facts: Facts, folder: str) -> str:
        """Python source that loads the model without ftc.

        It defines ``class_names``, and ``logits(paths)``: image files → logits, an array (N, C). The model
        card shows it, and the format is verified by running it.

        Args:
            facts: the model's facts.
            folder: the folder, as a user would write it.
        """


def quoted(text: str) -> str:
    """A text as Python source has it."""
    return json.dumps(text, ensure_ascii=False)


def source_of_pixels(resizing: bool) -> str:
    """The source of the functions from an image file to pixels.

    Args:
        resizing: whether `resized` is wanted beside `opened`.
    """
    functions: list[Any] = [opened, resized] if resizing else [opened]
    return "\n\n".join(inspect.getsource(function) for function in functions)


def source_of_batch(facts: Facts) -> str:
    """The lines of a recipe that make the graph's input, ``batch``, of a list of pixels, ``images``."""
    if facts.input == "uint8":
        return "    batch = np.stack(images)\n"
    return (
        '    mean, std = (np.float32(preprocessing[name]) for name in ("mean", "std"))\n'
        "    batch = ((np.float32(images) / 255 - mean) / std).transpose(0, 3, 1, 2).copy()\n"
    )
