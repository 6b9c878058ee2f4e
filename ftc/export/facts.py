"""What a deployed model says of itself, in every format (no torch)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ftc.errors import InputError
from ftc.partition import ClassPartition, PartitionRecord

# What a graph takes: pixels as Pillow has them, (N, H, W, channels), or normalised, (N, channels, H, W).
Input = Literal["uint8", "float32"]


class Preprocessing(BaseModel):
    """The preprocessing of images, in timm's terms; see `ftc.export.pixels.resized`.

    Attributes:
        input_size: channels, height and width.
        interpolation: how images are resized, such as ``bicubic``.
        crop_pct, crop_mode: how they are cropped.
        mean, std: normalisation of values between 0 and 1, one number a channel.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    input_size: tuple[int, int, int]
    interpolation: str
    crop_pct: float
    crop_mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def mode(self) -> str:
        """Pillow's mode of the images, ``RGB`` or ``L``."""
        return {1: "L", 3: "RGB"}[self.input_size[0]]


class Facts(BaseModel):
    """The facts that travel inside a deployed model.

    Attributes:
        class_names: one per head column.
        partition: seen, absent and other columns.
        calibrator: name of the calibrator in its run.
        gamma: γ in logits, as it was before the temperature; it is in the head's bias.
        temperature: T, by which logits and γ are divided; it is in the head, too.
        preprocessing: the preprocessing of images.
        input: what the exported graph takes.
        opset: version of ONNX's operators; None in other formats.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    class_names: tuple[str, ...]
    partition: PartitionRecord
    calibrator: str
    gamma: float
    temperature: float = 1.0
    preprocessing: Preprocessing
    input: Input = "uint8"
    opset: int | None = None

    @classmethod
    def checked(cls, content: Any, where: object) -> Facts:
        """The facts in what was read back, found at a place that messages name.

        Raises:
            InputError: they are not there, or are not what was written.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            key = ".".join(map(str, error.errors()[0]["loc"])) or "facts"
            raise InputError(
                f"{where}: does not say what it is ({key}), as models of this version do; make it anew"
            ) from error

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any], where: object) -> Facts:
        """The facts in the metadata of `ftc.export.bundle.bundle`.

        Raises:
            InputError: see `checked`.
        """
        return cls.checked({**metadata, "preprocessing": metadata.get("data_config")}, where)

    def texts(self) -> dict[str, str]:
        """The facts as texts of JSON, by name."""
        return {name: json.dumps(v, ensure_ascii=False) for name, v in self.model_dump(mode="json").items()}

    @classmethod
    def of_texts(cls, texts: Mapping[str, str], where: object) -> Facts:
        """The facts that `texts` gave.

        Raises:
            InputError: see `checked`.
        """
        found = {}
        for name in cls.model_fields.keys() & texts.keys():
            with suppress(ValueError):
                found[name] = json.loads(texts[name])
        return cls.checked(found, where)

    def classes(self) -> ClassPartition:
        """Seen, absent and other columns."""
        return self.partition.partition()
