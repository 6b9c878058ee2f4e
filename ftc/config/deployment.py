"""The configuration of the commands that deploy a model and predict with it (no torch)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ftc.config.node import BatchSize, Natural, Node, Positive
from ftc.errors import InputError
from ftc.results import FILE_NAME

# Ends of the names of files of predictions.
TABLES = (".csv", ".jsonl", ".parquet")

FormatName = Literal["timm", "onnx", "onnx_int8", "torch_export"]


class PriorConfig(Node):
    """The expected share of absent-class images; None for that of the classes, ``|U| / (|S| + |U|)``."""

    absent: Annotated[float, Field(gt=0, lt=1)] | None


class CostsConfig(Node):
    """The costs of an error on an image of a seen class and of an absent one."""

    seen: Positive
    absent: Positive


class DeployConfig(Node):
    """The configuration of ``python -m ftc.deploy``."""

    run: str
    to: str
    calibrator: str | None
    prior: PriorConfig
    costs: CostsConfig
    min_acc_seen: Annotated[float, Field(gt=0, lt=1)] | None
    temperature: Literal["none", "held_out", "pool"] | Positive
    formats: Annotated[list[FormatName], Field(min_length=1)]
    input: Literal["uint8", "float32"]
    license: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{1,60}$")]
    push: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None
    overwrite: bool
    allow_targets: list[str]

    @field_validator("formats")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("name each format once")
        return value

    @model_validator(mode="after")
    def _one_wish(self) -> DeployConfig:
        if self.min_acc_seen is not None and (
            self.prior.absent is not None or self.costs.seen != self.costs.absent
        ):
            raise InputError(
                f"min_acc_seen={self.min_acc_seen:g}: decides γ alone; leave out prior and costs, or it"
            )
        return self

    @model_validator(mode="after")
    def _places(self) -> DeployConfig:
        if not (Path(self.run) / FILE_NAME).is_file():
            raise InputError(f"run={self.run}: no folder of a finished run; name one that has {FILE_NAME}")
        to = Path(self.to)
        if to.resolve() in (Path.cwd(), *Path.cwd().parents, Path(self.run).resolve()):
            raise InputError(f"to={to}: is the run's folder or one that the command runs in; name another")
        if to.exists() and not self.overwrite:
            raise InputError(f"to={to}: exists; choose another folder, or set overwrite=true")
        return self


class PredictConfig(Node):
    """The configuration of ``python -m ftc.predict``."""

    model: str
    images: str | Annotated[list[str], Field(min_length=1)]
    to: str | None
    top_k: Annotated[int, Field(ge=1, le=100)]
    batch_size: BatchSize
    num_workers: Natural | Literal["auto"]
    device: Literal["auto", "cpu", "cuda", "mps"]
    engine: Literal["local", "ray"]
    overwrite: bool

    @model_validator(mode="after")
    def _places(self) -> PredictConfig:
        if not Path(self.model).exists():
            raise InputError(f"model={self.model}: no such file or folder")
        to = None if self.to is None else Path(self.to)
        if to is not None and to.suffix.lower() not in TABLES:
            raise InputError(f"to={to}: choose a file that ends in {', '.join(TABLES)}")
        if to is not None and to.is_dir():
            raise InputError(f"to={to}: is a folder; name a file")
        if to is not None and to.exists() and not self.overwrite:
            raise InputError(f"to={to}: exists; choose another file, or set overwrite=true")
        if self.engine == "ray" and to is None:
            raise InputError("engine=ray: wants a file to collect its rows in; name one in to")
        return self
