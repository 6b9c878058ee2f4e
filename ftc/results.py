"""What a run writes and a report reads: ``results.json``, the contract with other programs (no torch)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftc.errors import InputError
from ftc.files import written_whole

SCHEMA = 1
FILE_NAME = "results.json"


@dataclass(frozen=True)
class StageRecord:
    """One row of the table: a model with one γ on the test split.

    Attributes:
        gamma: in logits.
        uses: the data it was made with.
        metrics: fractions under PROTOCOL's names; None where a number does not apply.
        curve: ``gamma``, ``acc_seen``, ``acc_absent``, ``acc_all``; None for calibrated stages.
    """

    gamma: float
    uses: tuple[str, ...]
    metrics: dict[str, float | None]
    curve: dict[str, list[float | None]] | None = None

    def to_dict(self) -> dict[str, Any]:
        content: dict[str, Any] = {"gamma": self.gamma, "uses": list(self.uses), **self.metrics}
        return content if self.curve is None else {**content, "curve": self.curve}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> StageRecord:
        rest = dict(content)
        gamma, uses, curve = rest.pop("gamma"), tuple(rest.pop("uses")), rest.pop("curve", None)
        return cls(gamma, uses, rest, curve)


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes:
        experiment: its name.
        seed: of fine-tuning.
        partition: `ClassPartition.to_dict`.
        versions: of Python, ftc and the libraries that shape numbers.
        timing: seconds a stage; the only part that differs between two equal runs on one machine.
        source, fine_tuned: at γ = 0.
        calibrated: by calibrator; ``oracle`` is a bound, not a method.
        deployed: the calibrator whose γ is folded into ``checkpoints/calibrated.safetensors``.
        num_samples: evaluated samples by group.
    """

    experiment: str
    seed: int
    partition: dict[str, Any]
    versions: dict[str, str]
    timing: dict[str, float]
    source: StageRecord
    fine_tuned: StageRecord
    calibrated: dict[str, StageRecord]
    deployed: str
    num_samples: dict[str, int]
    schema: int = field(default=SCHEMA)

    def to_json(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        return {
            "schema": self.schema,
            "experiment": self.experiment,
            "seed": self.seed,
            "partition": self.partition,
            "versions": self.versions,
            "timing": self.timing,
            "num_samples": self.num_samples,
            "deployed": self.deployed,
            "stages": {
                "source": self.source.to_dict(),
                "fine_tuned": self.fine_tuned.to_dict(),
                "calibrated": {name: stage.to_dict() for name, stage in self.calibrated.items()},
            },
        }

    def write(self, folder: Path) -> Path:
        """Write ``results.json``, whole."""
        path = folder / FILE_NAME
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")
        return path

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read the record of a finished run.

        Raises:
            InputError: no such file, not a record, or one of another schema.
        """
        path = folder / FILE_NAME
        try:
            content = json.loads(path.read_text())
            if content["schema"] != SCHEMA:
                raise InputError(
                    f"{path}: schema {content['schema']}, this version reads {SCHEMA}; repeat the run"
                )
            stages = content.pop("stages")
            return cls(
                **content,
                source=StageRecord.from_dict(stages["source"]),
                fine_tuned=StageRecord.from_dict(stages["fine_tuned"]),
                calibrated={n: StageRecord.from_dict(s) for n, s in stages["calibrated"].items()},
            )
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; is the run finished?") from error
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise InputError(f"{path}: not a results file ({error!r}); repeat the run") from error

    def rows(self) -> list[tuple[str, StageRecord]]:
        """Source, fine-tuned and calibrated stages in the table's order, the oracle last."""
        methods = sorted(self.calibrated, key=lambda name: name == "oracle")
        calibrated = [(name, self.calibrated[name]) for name in methods]
        return [("source", self.source), ("fine_tuned", self.fine_tuned), *calibrated]


def nullable(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers that do not apply (``nan``) as None, JSON's ``null``."""
    return {name: none_if_nan(value) for name, value in values.items()}


def none_if_nan(value: float) -> float | None:
    """``nan`` as None."""
    return None if math.isnan(value) else value
