"""The model group."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ftc.config.node import Node


class TimmModelConfig(Node):
    kind: Literal["timm"]
    name: str
    pretrained: bool
    kwargs: dict[str, Any]


class ClipModelConfig(Node):
    """CLIP's image encoder, its zero-shot classifier as the head; of pre-trained weights, null: random."""

    kind: Literal["clip"]
    name: str
    pretrained: str | None
    templates: Annotated[list[str], Field(min_length=1)]
    words: dict[str, str]


ModelConfig = Annotated[TimmModelConfig | ClipModelConfig, Field(discriminator="kind")]
