"""The model group: a timm model, or CLIP (no torch)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ftc.config.node import Node


class TimmModelConfig(Node):
    """A model that ``timm.create_model`` knows."""

    kind: Literal["timm"]
    name: str
    pretrained: bool
    kwargs: dict[str, Any]


class ClipModelConfig(Node):
    """CLIP's image encoder with its zero-shot classifier as the head; ``pretrained: null`` is random."""

    kind: Literal["clip"]
    name: str
    pretrained: str | None
    templates: Annotated[list[str], Field(min_length=1)]
    words: dict[str, str]


ModelConfig = Annotated[TimmModelConfig | ClipModelConfig, Field(discriminator="kind")]
