"""The calibration group: which calibrators take part, and how results are reported."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ftc.config.node import Count, Natural, Node, Seed, Target
from ftc.errors import InputError
from ftc.results import Criterion


class BootstrapConfig(Node):
    """Bootstrap intervals of results; ``replicates: 0`` for none."""

    replicates: Natural
    confidence: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed

    @field_validator("replicates")
    @classmethod
    def _enough(cls, value: int) -> int:
        if value == 1:
            raise ValueError("give 0 for no intervals, or at least 2, better 1000")
        return value


class CalibratorsConfig(Node):
    """The calibrators there are, those in use, and how results are reported."""

    use: list[str]
    top_k: list[Count]
    average: Literal["sample", "class"]
    # Configurations of older runs have none.
    criterion: Criterion = "acc_all"
    per_class: Natural
    probabilities: bool
    bootstrap: BootstrapConfig
    calibrators: dict[str, Target]

    @model_validator(mode="after")
    def _names_exist(self) -> CalibratorsConfig:
        choices = ", ".join(sorted(self.calibrators))
        if "oracle" in self.calibrators:
            raise InputError("calibration.calibrators.oracle: the name is taken by the bound; choose another")
        for name in self.use:
            if name not in self.calibrators:
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
    """The calibrators of a run, one of which the deployed model uses."""

    default: str | None

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
        """Name of the calibrator that the deployed model uses: ``default``, or the first in use."""
        return self.use[0] if self.default is None else self.default
