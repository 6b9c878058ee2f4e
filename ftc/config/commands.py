"""The configuration as types, with everything that values alone can tell about themselves (no torch)."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from ftc.config.data import DataConfig, ModelConfig, Target
from ftc.config.node import Node
from ftc.config.partition import NamedSplit, PartitionConfig
from ftc.errors import InputError
from ftc.results import OBJECTIVES

# Files that hold logits; a folder of them holds an array each.
LOGIT_FILES = (".npz", ".npy", ".safetensors", ".parquet")

# What a run's numbers do not depend on, and so its name neither.
_NOT_COMPUTED = (
    *("run_dir", "group", "output_dir", "logger"),
    *("overwrite", "resume", "checkpoint_minutes", "objective"),
)


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
    checkpoint: str | None
    strict: bool
    seed: NonNegativeInt
    max_epochs: PositiveInt
    iterations_per_epoch: PositiveInt | None
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    cache_dir: str

    @model_validator(mode="after")
    def _checkpoint_exists(self) -> SourceConfig:
        if self.checkpoint is not None and not Path(self.checkpoint).is_file():
            raise InputError(f"source.checkpoint={self.checkpoint}: no such file")
        return self


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
    num_nodes: PositiveInt
    strategy: str
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    max_epochs: PositiveInt
    accumulate_grad_batches: PositiveInt
    gradient_clip_val: PositiveFloat | None
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

    @property
    def is_single(self) -> bool:
        """Whether one process does the training, as far as the configuration can tell."""
        one = self.devices in (1, "1") or (isinstance(self.devices, list) and len(self.devices) == 1)
        return one and self.num_nodes == 1


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
    resume: Literal["auto", "never"]
    checkpoint_minutes: PositiveFloat
    objective: str | None
    channels_last: bool
    compile: bool
    ema: Annotated[float, Field(gt=0, lt=1)] | None
    paper_repo: str | None
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
        if self.data.benchmark is not None:
            self.data.check_present()
        self.partition.check(self.data.num_classes)
        self._check_objective()
        whole = {"ema": self.ema, "compile": self.compile, "channels_last": self.channels_last}
        for key, value in whole.items():
            if self.trainer.strategy == "fsdp" and value:
                raise InputError(
                    f"{key}={value}: needs whole weights in every process, which trainer.strategy=fsdp "
                    "shares; leave it out, or choose trainer=ddp"
                )
        if self.data.readers.source is None and not self.has_pretrained_head:
            raise InputError(
                "data.readers.source=null: without source images the model itself is the source; "
                "set model.pretrained or source.checkpoint, or name a reader"
            )
        return self

    def _check_objective(self) -> None:
        name = self.objective
        if name is None:
            return
        if name not in OBJECTIVES:
            raise InputError(
                f"objective={name}: choose from {', '.join(OBJECTIVES)}; any other would know labels of "
                "absent classes"
            )
        if "oracle" in name:
            return
        if not self.data.held_out:
            raise InputError(
                f"objective={name}: wants labelled seen images held out of fine-tuning; set data.holdout to "
                "their share, such as 0.1, or name data.readers.val"
            )
        methods = [self.calibration.methods[name]["_target_"] for name in self.calibration.use]
        if name == "pseudo_ausuc" and not any(m.endswith(".PseudoCrossValidation") for m in methods):
            raise InputError(
                f"objective={name}: wants the folds of pseudo cross-validation; add pcv to calibration.use"
            )

    @property
    def has_pretrained_head(self) -> bool:
        """Whether the model comes with a head that knows the classes."""
        return bool(self.model.pretrained) or self.source.checkpoint is not None

    @property
    def trains_source(self) -> bool:
        """Whether the source stage trains: on source images, unless a checkpoint is the source model."""
        return self.data.readers.source is not None and self.source.checkpoint is None

    def execution(self) -> dict[str, Any]:
        """How the model is executed, which everything trained depends on in its last places."""
        return {"channels_last": self.channels_last, "compile": self.compile}

    def run_name(self) -> str:
        """A name by what the run computes: experiment, digest of the configuration, seeds."""
        return f"{self.name}-{digest(self.content())}-{self.partition.label()}-s{self.seed}"

    def content(self) -> dict[str, Any]:
        """What the run's numbers depend on, JSON types: files count by content, not by place."""
        content = self.model_dump(exclude={*_NOT_COMPUTED, "paper_repo"})
        content["partition"] = self.partition.identity()
        content["source"].pop("cache_dir")
        content["source"]["checkpoint"] = file_digest(self.source.checkpoint)
        content["data"].pop("cache_dir")
        if self.data.columns_file is not None:
            content["data"]["columns"] = file_digest(self.data.columns_file)
        content["calibration"].pop("cache_dir")
        return content


class EvaluateConfig(TrainConfig):
    """All of ``python -m ftc.evaluate``'s configuration: a run's, and the checkpoint to evaluate."""

    checkpoint: str

    @model_validator(mode="after")
    def _file_exists(self) -> EvaluateConfig:
        if not Path(self.checkpoint).is_file():
            raise InputError(f"checkpoint={self.checkpoint}: no such file")
        return self

    @property
    def has_pretrained_head(self) -> bool:
        return True

    def content(self) -> dict[str, Any]:
        return {**super().content(), "checkpoint": file_digest(self.checkpoint)}


class CalibrateConfig(JobConfig):
    """All of ``python -m ftc.calibrate``'s configuration."""

    train: str | None
    held_out: str | None
    pool: str | None
    eval: str
    partition: NamedSplit
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


def file_digest(path: str | None) -> str | None:
    """The SHA-256 of a file's content."""
    if path is None:
        return None
    whole = hashlib.sha256()
    with Path(path).open("rb") as file:
        while part := file.read(1 << 20):
            whole.update(part)
    return whole.hexdigest()
