"""The model group: a timm model, or CLIP (no torch)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ftc.config.node import Length, Node
from ftc.errors import InputError
from ftc.files import file_digest


class TimmModelConfig(Node):
    """A model that ``timm.create_model`` knows."""

    kind: Literal["timm"]
    name: str
    pretrained: bool
    weights: str | None = None
    input_size: Annotated[list[Length], Field(min_length=3, max_length=3)] | None = None
    head: Literal["linear", "cosine"] = "linear"
    kwargs: dict[str, Any]

    @model_validator(mode="after")
    def _overlay_has_keys(self) -> TimmModelConfig:
        overlay = self.kwargs.get("pretrained_cfg_overlay")
        if overlay is not None and not isinstance(overlay, dict):
            raise InputError(f"model.kwargs.pretrained_cfg_overlay={overlay}: give keys and values of timm's")
        return self

    @property
    def file(self) -> str | None:
        """The file of pre-trained weights that takes the place of timm's own; None for those."""
        overlay = self.kwargs.get("pretrained_cfg_overlay") or {}
        return self.weights or (overlay.get("file") if self.pretrained else None)

    @property
    def arguments(self) -> dict[str, Any]:
        """The further arguments of `timm.create_model`."""
        overlay = dict(self.kwargs.get("pretrained_cfg_overlay") or {})
        overlay.pop("file", None)
        if self.input_size is not None:
            overlay["input_size"] = tuple(self.input_size)
        return {**self.kwargs, **({"pretrained_cfg_overlay": overlay} if overlay else {})}

    def identity(self) -> dict[str, Any]:
        """Everything that the model depends on, files by content."""
        return {**self.model_dump(), "weights": file_digest(self.file)}


class ClipModelConfig(Node):
    """CLIP's image encoder with its zero-shot classifier as the head; ``pretrained: null`` is random."""

    kind: Literal["clip"]
    name: str
    pretrained: str | None
    templates: Annotated[list[str], Field(min_length=1)]
    words: dict[str, str]

    file: ClassVar[None] = None
    weights: ClassVar[None] = None
    head: ClassVar[Literal["linear"]] = "linear"

    def identity(self) -> dict[str, Any]:
        """Everything that the model depends on."""
        return self.model_dump()


ModelConfig = Annotated[TimmModelConfig | ClipModelConfig, Field(discriminator="kind")]
