"""The base of all configuration types (no torch)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Node(BaseModel):
    """A configuration node: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _has_target(node: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(node.get("_target_"), str):
        raise ValueError("needs a _target_, the dotted name of what to build")
    return node


# Bounds beyond which memory or arithmetic fails long after the start; no sensible value comes near.
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy's and Lightning's generators take
Natural = Annotated[int, Field(ge=0, le=10**9)]
Count = Annotated[int, Field(ge=1, le=10**9)]
BatchSize = Annotated[int, Field(ge=1, le=2**20)]
Length = Annotated[int, Field(ge=1, le=2**14)]  # pixels
Positive = Annotated[float, Field(gt=0, le=1e4)]
NonNegative = Annotated[float, Field(ge=0, le=1e4)]
Share = Annotated[float, Field(ge=0, lt=1)]

FigureFormat = Literal["png", "pdf", "svg"]

Target = Annotated[dict[str, Any], AfterValidator(_has_target)]
