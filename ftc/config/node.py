"""The base of all configuration types (no torch)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Node(BaseModel):
    """A configuration node: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
