"""The configuration of the commands that read finished runs (no torch)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ftc.config.node import FigureFormat, Natural, Node, Seed
from ftc.errors import InputError
from ftc.results import METRICS


class ViewConfig(Node):
    """What tables of estimators of γ and of methods show."""

    chosen_on: list[Seed]
    by: list[str]
    scores: bool
    refit: bool
    shifts: list[float]
    allow_targets: list[str]


class CompareConfig(ViewConfig):
    """The configuration of ``python -m ftc.compare``."""

    runs: str
    methods: bool

    @model_validator(mode="after")
    def _folder_exists(self) -> CompareConfig:
        _check_folders([self.runs])
        return self


class ReportConfig(ViewConfig):
    """The configuration of ``python -m ftc.report``."""

    runs: Annotated[list[str], Field(min_length=1)]
    view: Literal["scores", "estimators", "methods"]
    to: str | None
    metrics: Annotated[list[str], Field(min_length=1)]
    stages: list[str]
    baseline: dict[str, str | int | float | bool | None]
    replicates: Natural
    confidence: Annotated[float, Field(gt=0, lt=1)]
    figures: list[FigureFormat]
    page: bool
    thumbnails: bool

    @model_validator(mode="after")
    def _known(self) -> ReportConfig:
        _check_folders(self.runs)
        for name in self.metrics:
            if name not in METRICS:
                raise InputError(f"metrics=[{name}]: no such metric; choose from {', '.join(METRICS)}")
        if self.to is not None and Path(self.to).exists() and not Path(self.to).is_dir():
            raise InputError(f"to={self.to}: is a file; name a folder")
        if self.to is not None and (Path(self.to) / "config.yaml").exists():
            raise InputError(f"to={self.to}: is a run's folder; name another")
        return self


def _check_folders(folders: list[str]) -> None:
    for folder in folders:
        if not Path(folder).is_dir():
            raise InputError(f"runs={folder}: no such folder")
