"""The configuration as types: everything that composition alone can tell is checked here (no torch)."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
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
    field_validator,
    model_validator,
)

from ftc.errors import InputError
from ftc.partition import ClassPartition

# Files that hold logits; a folder of them holds an array each.
LOGIT_FILES = (".npz", ".npy", ".safetensors", ".parquet")

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
    val: Target | None
    test: Target
    pool: Target | None = None
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: list[Target]
    source_augmentation: list[Target]
    batch_size: PositiveInt
    eval_batch_size: PositiveInt
    iterations_per_epoch: PositiveInt | None
    num_workers: NonNegativeInt
    gallery: bool

    @model_validator(mode="after")
    def _has_validation_data(self) -> DataConfig:
        if (self.val is None) == (self.holdout == 0):
            raise InputError(
                f"data.holdout={self.holdout:g}: name data.val, or set data.val=null and data.holdout to the "
                "share of the seen training images to hold out"
            )
        return self


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
        return _named_partition(num_classes, self.seen, self.absent)


class NamedPartitionConfig(Node):
    seen: list[int]
    absent: list[int] | None

    def build(self, num_classes: int) -> ClassPartition:
        """The partition of a head that wide.

        Raises:
            InputError: names the key and the value.
        """
        return _named_partition(num_classes, self.seen, self.absent)


def _named_partition(num_classes: int, seen: list[int], absent: list[int] | None) -> ClassPartition:
    values = {"seen": seen, "absent": absent}
    if absent is None:
        absent = [c for c in range(num_classes) if c not in seen]
    try:
        return ClassPartition(num_classes, seen, absent)
    except InputError as error:
        key = "absent" if str(error).startswith("absent") else "seen"
        reason = str(error).removeprefix(f"{key}: ")
        raise InputError(f"partition.{key}={values[key]}: {reason}") from error


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


class BootstrapConfig(Node):
    replicates: NonNegativeInt
    confidence: Annotated[float, Field(gt=0, lt=1)]
    seed: NonNegativeInt

    @field_validator("replicates")
    @classmethod
    def _enough(cls, value: int) -> int:
        if value == 1:
            raise ValueError("give 0 for no intervals, or at least 2, better 1000")
        return value


class CalibratorsConfig(Node):
    use: list[str]
    top_k: list[PositiveInt]
    average: Literal["sample", "class"]
    bootstrap: BootstrapConfig
    methods: dict[str, Target]

    @model_validator(mode="after")
    def _names_exist(self) -> CalibratorsConfig:
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
        if 1 not in self.top_k:
            raise InputError(f"calibration.top_k={self.top_k}: 1 must be among them")
        return self


class CalibrationConfig(CalibratorsConfig):
    default: str | None
    cache_dir: str

    @model_validator(mode="after")
    def _default_is_in_use(self) -> CalibrationConfig:
        if not self.use:
            raise InputError("calibration.use=[]: name at least one calibrator, fixed for a γ given by hand")
        if self.default is not None and self.default not in self.use:
            raise InputError(
                f"calibration.default={self.default}: not among calibration.use; choose from "
                f"{', '.join(self.use)}"
            )
        return self

    @property
    def deployed(self) -> str:
        """The calibrator whose result a deployed model gets: the default, else the first in use."""
        return self.use[0] if self.default is None else self.default


class TrainerConfig(Node):
    # Lightning's Trainer has many more arguments; it checks those itself.
    model_config = ConfigDict(extra="allow", frozen=True)

    accelerator: str
    devices: int | str | list[int]
    strategy: str
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    max_epochs: PositiveInt
    deterministic: bool | Literal["warn"]

    @model_validator(mode="after")
    def _validates_at_the_end(self) -> TrainerConfig:
        every = (self.model_extra or {}).get("check_val_every_n_epoch")
        if isinstance(every, int) and (every < 1 or self.max_epochs % every):
            raise InputError(
                f"trainer.check_val_every_n_epoch={every}: γ is fitted at validations, so the last of "
                f"trainer.max_epochs={self.max_epochs} needs one; choose a divisor"
            )
        return self


class JobConfig(Node, ABC):
    """What all jobs that write a run folder have in common."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    output_dir: str
    run_dir: str | None
    overwrite: bool

    @abstractmethod
    def run_name(self) -> str:
        """A name by what the job computes."""


class TrainConfig(JobConfig):
    """All of ``python -m ftc.train``'s configuration."""

    seed: NonNegativeInt
    group: str | None
    fold: NonNegativeInt | None
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
        content["calibration"].pop("cache_dir")
        return f"{self.name}-{digest(content)}-p{self.partition.seed}-s{self.seed}"


class CalibrateConfig(JobConfig):
    """All of ``python -m ftc.calibrate``'s configuration."""

    train: str | None
    held_out: str | None
    pool: str | None
    eval: str
    partition: NamedPartitionConfig
    calibration: CalibratorsConfig

    @model_validator(mode="after")
    def _files_exist(self) -> CalibrateConfig:
        for key, path in self.files().items():
            if not path.exists():
                raise InputError(f"{key}={path}: no such file")
            if path.is_file() and path.suffix not in LOGIT_FILES:
                raise InputError(f"{key}={path}: choose a file that ends in {', '.join(LOGIT_FILES)}")
        return self

    def files(self) -> dict[str, Path]:
        """The files of logits that are given, by key."""
        given = {key: getattr(self, key) for key in ("train", "held_out", "pool", "eval")}
        return {key: Path(value) for key, value in given.items() if value is not None}

    def run_name(self) -> str:
        """A name by what the job computes: name, digest of configuration and of the files' content."""
        content = {k: v for k, v in self.model_dump().items() if k not in _NOT_COMPUTED}
        for key, path in self.files().items():
            parts = sorted(path.iterdir()) if path.is_dir() else [path]
            content[key] = [hashlib.sha256(part.read_bytes()).hexdigest() for part in parts if part.is_file()]
        return f"{self.name}-{digest(content)}"


class CompareConfig(Node):
    """All of ``python -m ftc.compare``'s configuration."""

    runs: str
    chosen_on: list[NonNegativeInt]
    refit: bool
    shifts: list[float]

    @model_validator(mode="after")
    def _folder_exists(self) -> CompareConfig:
        if not Path(self.runs).is_dir():
            raise InputError(f"runs={self.runs}: no such folder")
        return self


def digest(content: Any) -> str:
    """Eight hexadecimal digits that stand for JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


C = TypeVar("C", bound=Node)


def check(config: DictConfig, kind: type[C]) -> C:
    """Turn a composed configuration into types.

    Raises:
        InputError: a line for each key that is wrong, naming key, value and choices.
    """
    try:
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise InputError(f"{error.full_key}: missing; give it a value") from error
    except OmegaConfBaseException as error:
        raise InputError(" ".join(str(error).split())) from error
    try:
        return kind.model_validate(content)
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
