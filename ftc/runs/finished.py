"""A finished run, read back from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml
from attrs import frozen

from ftc.config.calibration import CalibratorsConfig
from ftc.config.check import as_type
from ftc.config.data import DataConfig
from ftc.config.node import Node
from ftc.errors import InputError
from ftc.files import damage
from ftc.partition import ClassPartition
from ftc.results import CONFIG_FILE, RunRecord

N = TypeVar("N", bound=Node)

# A key beside those of the configuration: the number of seen classes.
NUM_SEEN = "num_seen"


@frozen(eq=False, slots=False)
class FinishedRun:
    """A finished run.

    Attributes:
        folder: the run folder.
        record: the run's results.
        config: the run's configuration, as ``config.yaml`` has it.
    """

    folder: Path
    record: RunRecord
    config: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> FinishedRun:
        """Read the record and the configuration of a run.

        Raises:
            InputError: the run is not finished, or one of its files is damaged.
        """
        record, path = RunRecord.read(folder), folder / CONFIG_FILE
        with damage(path):
            config = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
        return cls(folder, record, config)

    @cached_property
    def data(self) -> DataConfig:
        """The data group.

        Raises:
            InputError: the run had none, or somebody changed it.
        """
        return self._group("data", DataConfig)

    @cached_property
    def calibration(self) -> CalibratorsConfig:
        """The calibration group, without what only a run of ftc.train has.

        Raises:
            InputError: somebody changed it.
        """
        return self._group("calibration", CalibratorsConfig, only=set(CalibratorsConfig.model_fields))

    def _group(self, name: str, kind: type[N], only: set[str] | None = None) -> N:
        path, content = self.folder / CONFIG_FILE, self.config.get(name)
        if not isinstance(content, dict):
            raise InputError(f"{path}: has no {name}; name another run, or repeat it")
        try:
            return as_type({k: v for k, v in content.items() if only is None or k in only}, kind)
        except InputError as error:
            raise InputError(f"{path}: {name}: {str(error).splitlines()[0]}") from error

    @property
    def partition_seed(self) -> int | None:
        """Seed of the class partition; None where the partition was not drawn."""
        partition = self.config.get("partition")
        return partition.get("seed") if isinstance(partition, dict) else None

    @property
    def oracle(self) -> float | None:
        """The score of γ* by the run's criterion, a fraction; None where there is no oracle."""
        stage = self.record.stages.calibrated.get("oracle")
        return None if stage is None else stage.metrics.get(self.record.criterion)

    def value(self, key: str) -> str | None:
        """The value of a key of the configuration, or of ``num_seen``, as text; None where there is none."""
        if key == NUM_SEEN:
            return str(len(self.partition.seen))
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return None if value is None else str(value)

    @property
    def partition(self) -> ClassPartition:
        """Seen, absent and other columns."""
        return self.record.partition.partition()
