"""The base of all configuration types (no torch)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict


class Node(BaseModel):
    """A configuration node: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _has_target(node: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(node.get("_target_"), str):
        raise ValueError("needs a _target_, the dotted name of what to build")
    return node


Target = Annotated[dict[str, Any], AfterValidator(_has_target)]
