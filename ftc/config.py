"""The configuration as types: everything that composition alone can tell is checked here (no torch)."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ftc.errors import InputError
from ftc.partition import ClassPartition

# What a run's numbers do not depend on, and so its name neither.
_NOT_COMPUTED = ("run_dir", "group", "overwrite", "output_dir", "logger")


def _has_target(node: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(node.get("_target_"), str):
        raise ValueError("needs a _target_, the dotted name of what to build")
    return node


Target = Annotated[dict[str, Any], AfterValidator(_has_target)]


class Node(BaseModel):
    """A configuration node: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Node):
    num_classes: PositiveInt
    source: Target | None
    train: Target
    val: Target
    test: Target
    augmentation: list[Target]
    source_augmentation: list[Target]
    batch_size: PositiveInt
    eval_batch_size: PositiveInt
    iterations_per_epoch: PositiveInt | None
    num_workers: NonNegativeInt
    gallery: bool


class ModelConfig(Node):
    name: str
    pretrained: bool
    kwargs: dict[str, Any]


class PartitionConfig(Node):
    seed: NonNegativeInt
    num_seen: PositiveInt
    num_absent: NonNegativeInt | None
    seen: list[int] | None
    absent: list[int] | None

    def build(self, num_classes: int) -> ClassPartition:
        """The partition of a head that wide.

        Raises:
            InputError: names the key and the value.
        """
        if self.seen is None:
            if self.absent is not None:
                raise InputError(
                    f"partition.absent={self.absent}: goes with partition.seen; name the seen too"
                )
            try:
                return ClassPartition.random(num_classes, self.num_seen, self.num_absent, self.seed)
            except InputError as error:
                raise InputError(f"partition.num_seen={self.num_seen}: {error}") from error
        absent = self.absent
        if absent is None:
            absent = [c for c in range(num_classes) if c not in self.seen]
        try:
            return ClassPartition(num_classes, self.seen, absent)
        except InputError as error:
            key = "absent" if str(error).startswith("absent") else "seen"
            reason = str(error).removeprefix(f"{key}: ")
            raise InputError(f"partition.{key}={getattr(self, key)}: {reason}") from error


class OptimizerConfig(Node):
    name: str
    lr: PositiveFloat
    backbone_lr_scale: NonNegativeFloat
    weight_decay: NonNegativeFloat
    momentum: Annotated[float, Field(ge=0, lt=1)]
    kwargs: dict[str, Any]


class SchedulerConfig(Node):
    name: str
    warmup_iterations: NonNegativeInt
    min_lr: NonNegativeFloat
    kwargs: dict[str, Any]


class SourceConfig(Node):
    seed: NonNegativeInt
    max_epochs: PositiveInt
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    cache_dir: str


class CalibrationConfig(Node):
    use: list[str]
    default: str
    top_k: list[PositiveInt]
    average: Literal["sample", "class"]
    methods: dict[str, Target]

    @model_validator(mode="after")
    def _names_exist(self) -> CalibrationConfig:
        choices = ", ".join(sorted(self.methods))
        if "oracle" in self.methods:
            raise InputError("calibration.methods.oracle: the name is taken by the bound; choose another")
        for name in self.use:
            if name not in self.methods:
                raise InputError(
                    f"calibration.use={self.use}: no calibrator {name!r}; choose from {choices} "
                    "(the oracle is always added)"
                )
        if len(set(self.use)) != len(self.use):
            raise InputError(f"calibration.use={self.use}: name each calibrator once")
        if self.default not in self.use:
            raise InputError(
                f"calibration.default={self.default}: not among calibration.use; choose from "
                f"{', '.join(self.use) or 'none: calibration.use is empty'}"
            )
        if 1 not in self.top_k:
            raise InputError(f"calibration.top_k={self.top_k}: 1 must be among them")
        return self


class TrainerConfig(Node):
    # Lightning's Trainer has many more arguments; it checks those itself.
    model_config = ConfigDict(extra="allow", frozen=True)

    accelerator: str
    devices: int | str | list[int]
    strategy: str
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    max_epochs: PositiveInt
    deterministic: bool | Literal["warn"]


class TrainConfig(Node):
    """All of ``python -m ftc.train``'s configuration."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    seed: NonNegativeInt
    output_dir: str
    run_dir: str | None
    group: str | None
    overwrite: bool
    data: DataConfig
    model: ModelConfig
    partition: PartitionConfig
    source: SourceConfig
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    calibration: CalibrationConfig
    trainer: TrainerConfig
    logger: dict[str, Target] | None

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        self.class_partition()
        if self.data.source is None and not self.model.pretrained:
            raise InputError(
                "data.source=null: without source images the model itself is the source; "
                "set model.pretrained=true or name a reader"
            )
        return self

    def class_partition(self) -> ClassPartition:
        """Seen, absent and other columns of the head."""
        return self.partition.build(self.data.num_classes)

    def run_name(self) -> str:
        """A name by what the run computes: experiment, digest of the configuration, seeds."""
        content = {k: v for k, v in self.model_dump().items() if k not in _NOT_COMPUTED}
        content["source"].pop("cache_dir")
        return f"{self.name}-{digest(content)}-p{self.partition.seed}-s{self.seed}"


def digest(content: Any) -> str:
    """Eight hexadecimal digits that stand for JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def check(config: DictConfig) -> TrainConfig:
    """Turn a composed configuration into types.

    Raises:
        InputError: a line for each key that is wrong, naming key, value and choices.
    """
    try:
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(" ".join(str(error).split())) from error
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(_explain(dict(detail)) for detail in error.errors())) from error


def _explain(detail: dict[str, Any]) -> str:
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return str(cause)
    # Branches of a union, such as list[int], are no part of the key.
    parts = [
        part for part in detail["loc"] if not (isinstance(part, str) and ("[" in part or part in _TYPES))
    ]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    if detail["type"] == "missing":
        return f"{key}: missing; give it a value"
    message = str(cause) if cause is not None else detail["msg"]
    if detail["type"] == "extra_forbidden":
        message = "no such key"
    return f"{key}={detail['input']}: {message[0].lower()}{message[1:]}"


_TYPES = ("int", "str", "bool", "literal['warn']")
