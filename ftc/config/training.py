"""The optimizer, scheduler, source and trainer groups (no torch)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    model_validator,
)

from ftc.config.node import Count, Natural, Node, NonNegative, Positive, Seed, Share
from ftc.errors import InputError


class OptimizerConfig(Node):
    """An optimiser of timm; ``lr`` is the head's."""

    name: str
    lr: Positive
    backbone_lr_scale: NonNegative
    weight_decay: NonNegative
    momentum: Share
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None
    kwargs: dict[str, Any]


class SchedulerConfig(Node):
    """A learning-rate schedule of timm, stepped every iteration."""

    name: str
    warmup_iterations: Natural
    min_lr: NonNegative
    kwargs: dict[str, Any]


class SourceConfig(Node):
    """The training of the source model, or the checkpoint that takes its place."""

    checkpoint: str | None
    strict: bool
    seed: Seed
    holdout: Share
    max_epochs: Count
    iterations_per_epoch: Count | None
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig

    @model_validator(mode="after")
    def _checkpoint_exists(self) -> SourceConfig:
        if self.checkpoint is not None and not Path(self.checkpoint).is_file():
            raise InputError(f"source.checkpoint={self.checkpoint}: no such file")
        return self


class TrainerConfig(Node):
    """The arguments of Lightning's Trainer."""

    # Lightning's Trainer has many more arguments; it checks those itself.
    model_config = ConfigDict(extra="allow", frozen=True)

    accelerator: str
    devices: int | str | list[int]
    num_nodes: Count
    strategy: str
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    max_epochs: Count
    accumulate_grad_batches: Count
    gradient_clip_val: Positive | None
    deterministic: bool | Literal["warn"]

    def recipe(self) -> dict[str, Any]:
        """What trained weights depend on, but for the number of epochs."""
        given = self.model_dump(exclude={*_PLACE, "max_epochs"})
        return {name: value for name, value in given.items() if not name.startswith(_BESIDE)}

    @property
    def is_single(self) -> bool:
        """Whether one process does the training, as far as the configuration can tell."""
        one = self.devices in (1, "1") or (isinstance(self.devices, list) and len(self.devices) == 1)
        return one and self.num_nodes == 1


# Keys that say where training happens; weights do not depend on them.
_PLACE = {"accelerator", "devices", "num_nodes", "strategy"}
# How arguments begin that evaluate, log or show; nor on them.
_BESIDE = (
    *("check_val", "val_", "limit_val", "limit_test", "limit_predict", "num_sanity"),
    *("log", "enable_", "profiler", "default_root", "inference_mode", "detect_anomaly"),
)
