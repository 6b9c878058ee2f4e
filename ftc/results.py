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

SCHEMA = 2
FILE_NAME = "results.json"
CONFIG_FILE = "config.yaml"
CURVE_FIELDS = ("gamma", "acc_seen", "acc_absent", "acc_all")
_MAIN_METRICS = ("acc_all", "acc_seen", "acc_absent", "harmonic", "ausuc", "ncm_acc_all", "ncm_acc_absent")
# What hyper-parameters may be chosen by: seen-only numbers, and bounds that say so.
OBJECTIVES = (
    "pseudo_ausuc",
    "held_out_acc_seen_within",
    "held_out_acc_seen",
    "oracle_ausuc",
    "oracle_acc_all",
)
LANES = ("seen_only", "unlabelled", "oracle")


@dataclass(frozen=True)
class StageRecord:
    """One row of the table: a model with one γ on the test split.

    Attributes:
        gamma: in logits.
        uses: the data it was made with.
        metrics: fractions under PROTOCOL's names; None where a number does not apply.
        curve: ``gamma``, ``acc_seen``, ``acc_absent``, ``acc_all``; None for calibrated stages.
        lane: ``seen_only``, ``unlabelled`` or ``oracle`` for calibrated stages, None for the others.
        details: what else a calibrator estimated, by name.
        intervals: bootstrap intervals, (low, high), of metrics and of ``gamma``; empty unless asked for.
    """

    gamma: float
    uses: tuple[str, ...]
    metrics: dict[str, float | None]
    curve: dict[str, list[float | None]] | None = None
    lane: str | None = None
    details: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, list[float | None]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        content: dict[str, Any] = {"gamma": self.gamma, "uses": list(self.uses), **self.metrics}
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value:
                content[name] = value
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> StageRecord:
        rest = dict(content)
        gamma, uses = rest.pop("gamma"), tuple(rest.pop("uses"))
        optional = {name: rest.pop(name) for name in _OPTIONAL if name in rest}
        return cls(gamma, uses, rest, **optional)


_OPTIONAL = ("lane", "details", "intervals", "curve")


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes:
        experiment: its name.
        seed: of fine-tuning; None where there was none.
        partition: `ClassPartition.to_dict`.
        versions: of Python, ftc and the libraries that shape numbers.
        timing: seconds a stage; the only part that differs between two equal runs on one machine.
        source: the source model, or None where it was not evaluated.
        fine_tuned: at γ = 0.
        calibrated: by calibrator; ``oracle`` is a bound, not a method.
        deployed: the calibrator whose γ is folded into ``checkpoints/calibrated.safetensors``; None where
            there is no model, only logits.
        num_samples: evaluated samples by group.
        feature_drift: how far fine-tuning moved the features of test images, see `ftc.metrics.FeatureDrift`.
        checkpoint: SHA-256 of the weights that were evaluated as ``fine_tuned`` without any training; None
            for a run that trained them.
        selection: what hyper-parameters may be chosen by, of `OBJECTIVES` those that apply.
    """

    experiment: str
    seed: int | None
    partition: dict[str, Any]
    versions: dict[str, str]
    timing: dict[str, float]
    source: StageRecord | None
    fine_tuned: StageRecord
    calibrated: dict[str, StageRecord]
    deployed: str | None
    num_samples: dict[str, int]
    feature_drift: dict[str, float | None] = field(default_factory=dict)
    checkpoint: str | None = None
    selection: dict[str, float | None] = field(default_factory=dict)
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
            "feature_drift": self.feature_drift,
            "checkpoint": self.checkpoint,
            "selection": self.selection,
            "stages": {
                "source": None if self.source is None else self.source.to_dict(),
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
                source=None if stages["source"] is None else StageRecord.from_dict(stages["source"]),
                fine_tuned=StageRecord.from_dict(stages["fine_tuned"]),
                calibrated={n: StageRecord.from_dict(s) for n, s in stages["calibrated"].items()},
            )
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; is the run finished?") from error
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise InputError(f"{path}: not a results file ({error!r}); repeat the run") from error

    def rows(self) -> list[tuple[str, StageRecord]]:
        """Source, fine-tuned and calibrated stages: seen-only, then unlabelled ones, oracles last."""
        calibrated = sorted(
            self.calibrated.items(), key=lambda item: LANES.index(item[1].lane or "seen_only")
        )
        source = [] if self.source is None else [("source", self.source)]
        return [*source, ("fine_tuned", self.fine_tuned), *calibrated]

    def scalars(self) -> dict[str, Any]:
        """The main numbers of every stage as ``stage/name``, ``selection/name`` too, for a sweep's table."""
        result: dict[str, Any] = {f"selection/{name}": value for name, value in self.selection.items()}
        for stage, values in self.rows():
            names = _MAIN_METRICS if values.lane is None else _MAIN_METRICS[:4]
            result |= {f"{stage}/{name}": values.metrics.get(name) for name in names}
            if values.lane is not None:
                result[f"{stage}/gamma"] = values.gamma
        return result

    def lane(self, lane: str) -> dict[str, StageRecord]:
        """The calibrated stages of a lane."""
        return {name: stage for name, stage in self.calibrated.items() if stage.lane == lane}


def nullable(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers that do not apply (``nan``) as None, JSON's ``null``."""
    return {name: none_if_nan(value) for name, value in values.items()}


def none_if_nan(value: float) -> float | None:
    """``nan`` as None."""
    return None if math.isnan(value) else value
