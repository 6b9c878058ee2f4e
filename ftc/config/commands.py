"""The configuration of each command as types, with the checks that need values alone (no torch)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from ftc.config.calibration import CalibrationConfig, CalibratorsConfig
from ftc.config.data import DataConfig
from ftc.config.model import ClipModelConfig, ModelConfig
from ftc.config.node import FigureFormat, Natural, Node, Positive, Seed, Target
from ftc.config.partition import NamedPartition, PartitionConfig
from ftc.config.training import OptimizerConfig, SchedulerConfig, SourceConfig, TrainerConfig
from ftc.errors import InputError
from ftc.files import digest, file_digest
from ftc.results import OBJECTIVES

# Suffixes of files that hold logits; a folder holds one .npy file per array instead.
LOGIT_FILES = (".npz", ".npy", ".safetensors", ".parquet")

# Keys that do not change a run's numbers: its name does not depend on them either.
NOT_COMPUTED = (
    *("run_dir", "group", "output_dir", "cache_dir", "logger"),
    *("overwrite", "resume", "checkpoint_minutes", "objective", "allow_targets", "figures"),
)
# Those of the group ``calibration``: what is printed of a record that has everything.
_PRINTED = ("per_class", "probabilities")


class JobConfig(Node, ABC):
    """The keys of every command that writes a run folder."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
    output_dir: str
    run_dir: str | None
    overwrite: bool
    figures: list[FigureFormat]
    allow_targets: list[str]
    calibration: CalibratorsConfig

    @property
    def folder(self) -> Path:
        """The run folder; ``run_dir`` is filled in before any work begins."""
        assert self.run_dir is not None
        return Path(self.run_dir)

    @abstractmethod
    def run_name(self) -> str:
        """The name of the run folder, which says what the job computes."""


class TrainConfig(JobConfig):
    """The configuration of ``python -m ftc.train``."""

    seed: Seed
    group: str | None
    fold: Natural | None
    resume: Literal["auto", "never"]
    checkpoint_minutes: Positive
    objective: str | None
    channels_last: bool
    compile: bool
    grad_checkpointing: bool
    ema: Annotated[float, Field(gt=0, lt=1)] | None
    paper_repo: str | None
    cache_dir: str
    data: DataConfig
    model: ModelConfig
    partition: PartitionConfig
    source: SourceConfig
    method: Target
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    calibration: CalibrationConfig
    trainer: TrainerConfig
    logger: dict[str, Target] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.data.benchmark is not None:
            self.data.check_present()
        # A benchmark may bring the weights, so that its absence is what is to be said.
        if self.model.weights is not None and not Path(self.model.weights).is_file():
            raise InputError(f"model.weights={self.model.weights}: no such file")
        self.partition.check(self.data.num_classes)
        self._check_objective()
        whole = {"ema": self.ema, "compile": self.compile}
        for key, value in whole.items():
            if self.trainer.strategy == "fsdp" and value:
                raise InputError(
                    f"{key}={value}: needs whole weights in every process, but trainer.strategy=fsdp "
                    "shards them; leave it out, or choose trainer=ddp"
                )
        if self.data.readers.source is None and not self.has_pretrained_head:
            raise InputError(
                "data.readers.source=null: without source images the model itself is the source; "
                "set model.pretrained, model.weights or source.checkpoint, or name a reader"
            )
        if self.model.head == "cosine" and not self.trains_source and self.source.checkpoint is None:
            raise InputError(
                "model.head=cosine: pre-trained weights come with a linear head; train the source model with "
                "it (data.readers.source), name one in source.checkpoint, or choose linear"
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
            bounds = ("oracle_ausuc", f"oracle_{self.calibration.criterion}")
            if name not in bounds:
                raise InputError(
                    f"objective={name}: γ* is the best by calibration.criterion="
                    f"{self.calibration.criterion}; choose {' or '.join(bounds)}, or another criterion"
                )
            return
        if not self.data.held_out:
            raise InputError(
                f"objective={name}: wants labelled seen images held out of fine-tuning; set data.holdout to "
                "their share, such as 0.1, or name data.readers.val"
            )

    @property
    def has_pretrained_head(self) -> bool:
        """Whether the model comes with a head that knows the classes."""
        return bool(self.model.pretrained or self.model.file) or self.source.checkpoint is not None

    @property
    def trains_source(self) -> bool:
        """Whether the source stage trains: with source images, and without ``source.checkpoint``."""
        return self.data.readers.source is not None and self.source.checkpoint is None

    @property
    def weights_file(self) -> str | None:
        """The file of weights that takes the place of the model's own; None for those."""
        return self.source.checkpoint or self.model.file

    @property
    def names_make_columns(self) -> bool:
        """Whether columns that the source model lacks begin from their names, by CLIP's text encoder."""
        return isinstance(self.model, ClipModelConfig) and not self.trains_source

    def cache(self, part: Literal["source", "own_domain", "folds", "images"]) -> Path:
        """Folder of a part of the cache, which runs share.

        Args:
            part: source models, what was measured on their own domains, folds of PCV, or decoded images.
        """
        return Path(self.cache_dir) / part

    def execution(self) -> dict[str, Any]:
        """The settings of execution, on which trained weights depend in their last digits."""
        names = ("channels_last", "compile", "grad_checkpointing")
        return {name: getattr(self, name) for name in names}

    def run_name(self) -> str:
        """The name of the run folder: experiment, data, digest of the configuration, partition, seed."""
        data = "" if self.data.label is None else f"-{self.data.label}"
        return f"{self.name}{data}-{digest(self.content())}-{self.partition.label()}-s{self.seed}"

    def title(self) -> str:
        """The run's name in print: experiment, data and partition."""
        data = [] if self.data.label is None else [str(self.data.label)]
        return " ".join([self.name, *data, self.partition.label()])

    def content(self) -> dict[str, Any]:
        """Everything that the run's numbers depend on, as JSON types; files by content, not by path."""
        content = self.model_dump(exclude={*NOT_COMPUTED, "paper_repo"})
        for key in ("num_workers", "label"):
            content["data"].pop(key)
        for key in _PRINTED:
            content["calibration"].pop(key)
        content["partition"] = self.partition.identity()
        content["model"] = self.model.identity()
        content["source"]["checkpoint"] = file_digest(self.source.checkpoint)
        if self.data.columns_file is not None:
            own, plus = file_digest(self.data.columns_file), "+" if self.data.adds_columns else ""
            content["data"]["columns"] = f"{own}{plus}"
        if self.data.groups_file is not None:
            content["data"]["groups"] = file_digest(self.data.groups_file)
        return content


class EvaluateConfig(TrainConfig):
    """The configuration of ``python -m ftc.evaluate``: a run's, and the checkpoint to evaluate."""

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
    """The configuration of ``python -m ftc.calibrate``."""

    train: str | None
    held_out: str | None
    pool: str | None
    eval: str
    partition: NamedPartition
    calibration: CalibratorsConfig

    @model_validator(mode="after")
    def _files_exist(self) -> CalibrateConfig:
        for key, path in self.files().items():
            if not path.is_file() and not path.is_dir():
                raise InputError(f"{key}={path}: no such file or folder")
            if path.is_file() and path.suffix.lower() not in LOGIT_FILES:
                raise InputError(f"{key}={path}: choose a file that ends in {', '.join(LOGIT_FILES)}")
        return self

    def files(self) -> dict[str, Path]:
        """The given files of logits, by key."""
        given = {key: getattr(self, key) for key in ("train", "held_out", "pool", "eval")}
        return {key: Path(value) for key, value in given.items() if value is not None}

    def run_name(self) -> str:
        """The name of the run folder: ``name``, and a digest of the configuration and the files' content."""
        content = {k: v for k, v in self.model_dump().items() if k not in NOT_COMPUTED}
        for key in _PRINTED:
            content["calibration"].pop(key)
        for key, path in self.files().items():
            parts = sorted(path.iterdir()) if path.is_dir() else [path]
            content[key] = [file_digest(str(part)) for part in parts if part.is_file()]
        return f"{self.name}-{digest(content)}"
