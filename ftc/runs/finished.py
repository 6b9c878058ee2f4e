"""A finished run, read back from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow.parquet as pq
import yaml
from attrs import frozen
from torch import Tensor

from ftc.calibrators import LinearHead
from ftc.config.calibration import CalibratorsConfig
from ftc.config.check import as_type
from ftc.config.data import DataConfig
from ftc.config.node import Node
from ftc.errors import InputError
from ftc.evaluation.analyses import analyses
from ftc.export.bundle import FINE_TUNED_WEIGHTS, SOURCE_WEIGHTS
from ftc.files import damage
from ftc.models import begun_columns, head_rows, load_metadata, load_tensors
from ftc.partition import ClassPartition
from ftc.results import CONFIG_FILE, Analyses, RunRecord
from ftc.runs.folder import EPOCHS, PREDICTIONS

N = TypeVar("N", bound=Node)

# Parses the same with a tenth of the time, where PyYAML was built with it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# A key beside those of the configuration: the number of seen classes.
NUM_SEEN = "num_seen"


class SavedOutputs:
    """What a run kept of its models: outputs by sample, and the heads.

    Args:
        folder: the run folder.

    Raises:
        InputError: the run kept none, as those of ftc.calibrate, or the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / PREDICTIONS
        self._tensors = load_tensors(self.path)

    def has(self, stage: str, split: str, field: str) -> bool:
        """Whether there is such a field."""
        return f"{stage}/{split}/{field}" in self._tensors

    def of(self, stage: str, split: str, field: str) -> Tensor:
        """A field of a stage: ``logits`` (N, C), ``features`` (N, D), ``target`` (N,) or ``id`` (N,).

        Raises:
            InputError: it is missing, as those of V are where nothing was held out.
        """
        if not self.has(stage, split, field):
            raise InputError(f"{self.path}: has no {stage}/{split}/{field}; leave the run out")
        return self._tensors[f"{stage}/{split}/{field}"]

    def head(self, stage: Literal["source", "fine_tuned"]) -> LinearHead:
        """The head of the source or of the fine-tuned model.

        Raises:
            InputError: the run kept no weights, or the file is damaged.
        """
        path = self.folder / (SOURCE_WEIGHTS if stage == "source" else FINE_TUNED_WEIGHTS)
        return LinearHead.of(load_tensors(path), load_metadata(self.folder / FINE_TUNED_WEIGHTS)["head"])


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
            config = dict(yaml.load(path.read_text(encoding="utf-8"), _Loader))
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
    def keeps_outputs(self) -> bool:
        """Whether there are `outputs`."""
        return (self.folder / PREDICTIONS).is_file()

    def outputs(self) -> SavedOutputs:
        """What the run kept of its models, read anew at every call, because it is large."""
        return SavedOutputs(self.folder)

    def analyses(self) -> Analyses | None:
        """What fine-tuning did to head and features, computed where an older record lacks it.

        None where nothing was trained, or the run kept no outputs.

        Raises:
            InputError: a file that the run kept is missing or damaged.
        """
        if self.record.analyses is not None or self.record.checkpoint is not None or not self.keeps_outputs:
            return self.record.analyses
        source, fine_tuned = (self.folder / name for name in (SOURCE_WEIGHTS, FINE_TUNED_WEIGHTS))
        outputs, described = self.outputs(), load_metadata(fine_tuned)
        head = described["head"]
        return analyses(
            (outputs.of("source", "test", "features"), outputs.of("fine_tuned", "test", "features")),
            outputs.of("fine_tuned", "test", "target"),
            (head_rows(load_tensors(source), head), head_rows(load_tensors(fine_tuned), head)),
            self.partition,
            described["class_names"],
            begun_columns(source),
        )

    def epochs(self) -> list[dict[str, Any]]:
        """One row for each epoch, the source model (−1) first: scalars, and the curve as ``curve_…`` lists.

        There is none of a run that trained nothing.

        Raises:
            InputError: the file is damaged.
        """
        path = self.folder / EPOCHS
        if not path.is_file():
            return []
        with damage(path):
            return list(pq.read_table(path).to_pylist())

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
