"""The record of a run: ``results.json``, the contract with other programs, and its names (no torch)."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from ftc.errors import InputError
from ftc.files import written_whole
from ftc.partition import PartitionRecord

SCHEMA: Literal[2] = 2
FILE_NAME = "results.json"
CONFIG_FILE = "config.yaml"
LIBRARIES = ("ftc", "torch", "torchvision", "lightning", "torchmetrics", "timm")

# Every accuracy by name, with its symbol in print (docs/definitions.md, "Metrics").
METRICS = {
    "acc_all": "Y/Y",
    "acc_seen": "S/Y",
    "acc_absent": "U/Y",
    "acc_seen_within": "S/S",
    "acc_absent_within": "U/U",
    "harmonic": "H",
    "balanced": "(S/Y + U/Y)/2",
    "ausuc": "AUSUC",
    "ncm_acc_all": "NCM Y/Y",
    "ncm_acc_absent": "NCM U/Y",
}
CURVE_FIELDS = ("gamma", "acc_seen", "acc_absent", "acc_all")

# Numbers that hyper-parameters may be chosen by: seen-only ones, and bounds that are named oracle.
OBJECTIVES = (
    "pseudo_ausuc",
    "held_out_acc_seen_within",
    "held_out_acc_seen",
    "oracle_ausuc",
    "oracle_acc_all",
    "oracle_harmonic",
    "oracle_balanced",
)
# What the best γ is the best by: metrics of these names.
Criterion = Literal["acc_all", "harmonic", "balanced"]

Lane = Literal["seen_only", "unlabelled", "oracle"]
# Lanes in the order of their tables, with titles. No table compares seen-only with unlabelled calibrators.
LANES: dict[Lane, str] = {
    "seen_only": "calibrated on labelled seen target images",
    "unlabelled": "calibrated with unlabelled target images",
    "oracle": "bounds from evaluated labels",
}

# Scalars of a sweep's table; γ moves only the first five, the others are given for γ = 0.
_MOVED_BY_GAMMA = ("acc_all", "acc_seen", "acc_absent", "harmonic", "balanced")
_MAIN_METRICS = (*_MOVED_BY_GAMMA, "ausuc", "ncm_acc_all", "ncm_acc_absent")


class StageRecord(BaseModel):
    """The result of a stage: a model with one γ, evaluated on the test split; a row of the table.

    In the file, metrics stand beside the other fields, and empty fields are left out.

    Attributes:
        gamma: γ in logits.
        uses: the data that it was made with, in words.
        title: a calibrator's name in print; empty for models, and in records that older versions wrote.
        lane: lane of a calibrator; None for a model at γ = 0.
        details: further numbers that a calibrator estimated, by name.
        intervals: bootstrap intervals, (low, high), of metrics and of ``gamma``; empty unless asked for.
        curve: ``gamma``, ``acc_seen``, ``acc_absent``, ``acc_all``; None for calibrated stages.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, float | None] = Field(init=False)

    gamma: float
    uses: tuple[str, ...]
    title: str = ""
    lane: Lane | None = None
    details: dict[str, float] = Field(default_factory=dict)
    intervals: dict[str, tuple[float | None, float | None]] = Field(default_factory=dict)
    curve: dict[str, list[float | None]] | None = None

    @property
    def metrics(self) -> dict[str, float | None]:
        """Numbers by name, see docs/definitions.md; None where one does not apply."""
        return self.__pydantic_extra__

    @model_serializer(mode="wrap")
    def _without_empty_fields(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        optional = ("title", "lane", "details", "intervals", "curve")
        return {name: v for name, v in serialise(self).items() if v or name not in optional}


class StageRecords(BaseModel):
    """The results of a run's stages.

    Attributes:
        source: the source model, or None where it was not evaluated.
        fine_tuned: the fine-tuned model at γ = 0.
        calibrated: one record for each calibrator, by name; ``oracle`` is a bound, not a calibrator.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: StageRecord | None
    fine_tuned: StageRecord
    calibrated: dict[str, StageRecord]


class OwnDomain(BaseModel):
    """The source model on source images that were held out of its training.

    Attributes:
        acc_all: Y/Y on them, a fraction.
        num_samples: how many there are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    acc_all: float
    num_samples: int

    def __str__(self) -> str:
        return (
            f"Source model on its own domain: {100 * self.acc_all:.1f} % of {self.num_samples:,} images that "
            "were held out of its training"
        )


class Confusion(BaseModel):
    """How often samples of a class are taken for another.

    Attributes:
        label: name of their class.
        predicted: name of the other.
        before: number of samples at γ = 0.
        after: the same of the calibrated model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    predicted: str
    before: int
    after: int


class PerClass(BaseModel):
    """Results class by class, of the classes that have evaluated samples.

    Attributes:
        columns: their head columns, ascending.
        names: their names.
        num_samples: their numbers of evaluated samples.
        fine_tuned: accuracies of the fine-tuned model at γ = 0, the argmax over all columns; fractions.
        calibrated: the same of each calibrated model, by name of the calibrator.
        confusions: the confusions that calibration changes most, by name of the calibrator.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: list[int]
    names: list[str]
    num_samples: list[int]
    fine_tuned: list[float]
    calibrated: dict[str, list[float]]
    confusions: dict[str, list[Confusion]]


class Reliability(BaseModel):
    """A reliability diagram: top-label confidences against accuracies, in bins of equal mass.

    Attributes:
        confidence: mean confidence of each bin, ascending; fractions.
        accuracy: accuracy of each bin, a fraction.
        num_samples: the number of samples in all bins.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    confidence: list[float]
    accuracy: list[float]
    num_samples: int

    @property
    def mean_accuracy(self) -> float:
        """The accuracy on all samples, since bins have equal mass."""
        return sum(self.accuracy) / len(self.accuracy)


class Measured(BaseModel):
    """How good the probabilities softmax((z + γ·1_U) / T) of a model are on the test split.

    Attributes:
        metrics: numbers by name (docs/definitions.md, "Probabilities"); None where one does not apply.
        reliability: reliability diagrams of ``all``, ``seen`` and ``absent`` samples, where there are any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: dict[str, float | None]
    reliability: dict[str, Reliability]


class Scaled(Measured):
    """The same at a temperature T.

    Attributes:
        temperature: T, which divides all logits, γ included.
        uses: the data that T was fitted on, in words.
    """

    temperature: float
    uses: tuple[str, ...]


class Probabilities(Measured):
    """The probabilities of a stage, at T = 1 and at fitted temperatures.

    Attributes:
        temperatures: ``held_out``, fitted on held-out seen samples, and ``pool``, on unlabelled images as
            well; only those that there are data for.
    """

    temperatures: dict[str, Scaled]


class HeadUpdates(BaseModel):
    """Directions in which fine-tuning moved the rows of the head, see `ftc.functional.update_cosines`.

    Attributes:
        within_seen, within_absent, across: mean cosines over pairs of two seen classes, of two absent ones,
            and of one each; None without pairs.
        matrix: mean cosines between blocks of consecutive classes, rounded to 3 decimals, at most 100 by 100;
            None without pairs, as of a class with itself.
        names: names of the classes in the order of the matrix, seen ones first.
        num_seen: how many of them are seen.
        seen_blocks: how many of the matrix's blocks are of seen classes.
        block: classes a block, 1 for up to 100 classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    within_seen: float | None
    within_absent: float | None
    across: float | None
    matrix: list[list[float | None]]
    names: list[str]
    num_seen: int
    seen_blocks: int
    block: int


class ClassShift(BaseModel):
    """The shift of the means of classes' test features, see `ftc.functional.class_shift`.

    Attributes:
        columns: head columns of the classes with test images, ascending.
        names: their names.
        source, fine_tuned: coordinates of their means in the plane in which both models' means vary most.
        explained: the share of that variance along each coordinate; None where there is none.
        drift: distance of new to old mean as a multiple of the old means' mean distance to their centre; None
            where all old means are one.
        cosine: cosine of new to old mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: list[int]
    names: list[str]
    source: list[tuple[float, float]]
    fine_tuned: list[tuple[float, float]]
    explained: tuple[float | None, float | None]
    drift: list[float | None]
    cosine: list[float]


class Analyses(BaseModel):
    """What fine-tuning did to head and features (docs/definitions.md, "Analyses").

    Attributes:
        head_updates: directions of the updates of the head's rows; None where it moved no row that the source
            model has.
        class_shift: the shift of class means.
        cka: linear CKA of both models' test features, by group of samples: ``all``, ``seen`` and ``absent``;
            None where features of a group do not vary, or there are none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    head_updates: HeadUpdates | None
    class_shift: ClassShift
    cka: dict[str, float | None]


class RunRecord(BaseModel):
    """The record of a finished run.

    Attributes:
        schema_version: version of the file's schema, which the file calls ``schema``.
        experiment: name of the experiment.
        title: the run's name in print: experiment, data and partition; empty in older records.
        method: title of the method of fine-tuning; None where nothing was trained, or for older records.
        trainable: the number of values that fine-tuning trained; None where it did not, or in older records.
        seed: seed of fine-tuning; None where there was none.
        criterion: the metric that the oracle's γ* is the best by; ``acc_all`` in older records.
        partition: seen, absent and other columns.
        versions: versions of Python, ftc and the libraries that shape numbers.
        device: kind of device that computed the numbers, such as ``cpu`` or ``cuda``; None where none did, or
            in older records.
        timing: seconds by stage; the only part that differs between two equal runs on one machine.
        num_samples: number of evaluated samples by group.
        deployed: the calibrator whose γ is folded into ``checkpoints/calibrated.safetensors``; None where
            there is no model to deploy.
        own_domain: the source model on its own domain; None where that was not measured.
        near_copies: share of the held-out seen images V that are nearly an image that is trained on, see
            `ftc.functional.near_copies`; None where there are none held out, or features
            have too few directions to tell.
        lost_on_held_out: Acc_{S/F} on held-out seen samples, a fraction, of the source and of the fine-tuned
            model, where the latter is worse by more than chance; None elsewhere.
        feature_drift: how far fine-tuning moved the features of test images, see `ftc.metrics.FeatureDrift`.
        checkpoint: SHA-256 of the weights that were evaluated as ``fine_tuned`` without any training; None
            for a run that trained them.
        analyses: what fine-tuning did to head and features; None where nothing was trained, or in older
            records.
        per_class: results class by class; None in older records.
        probabilities: how good probabilities are, by stage, see `rows`; None in older records.
        selection: numbers that hyper-parameters may be chosen by, those of `OBJECTIVES` that apply.
        stages: results of the stages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: Literal[2] = Field(SCHEMA, alias="schema")
    experiment: str
    title: str = ""
    method: str | None = None
    trainable: int | None = None
    seed: int | None
    criterion: Criterion = "acc_all"
    partition: PartitionRecord
    versions: dict[str, str]
    device: str | None = None
    timing: dict[str, float]
    num_samples: dict[str, int]
    deployed: str | None
    own_domain: OwnDomain | None = None
    near_copies: float | None = None
    lost_on_held_out: tuple[float, float] | None = None
    feature_drift: dict[str, float | None] = Field(default_factory=dict)
    checkpoint: str | None = None
    analyses: Analyses | None = None
    per_class: PerClass | None = None
    probabilities: dict[str, Probabilities] | None = None
    selection: dict[str, float | None] = Field(default_factory=dict)
    stages: StageRecords

    def write(self, folder: Path) -> Path:
        """Write ``results.json``, whole or not at all."""
        path = folder / FILE_NAME
        content = self.model_dump(mode="json", by_alias=True)
        content["digest"] = _digest(content)
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        return path

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read the record of a finished run.

        Raises:
            InputError: no such file, not a record, one of another schema, or one that was changed.
        """
        path = folder / FILE_NAME
        try:
            content = json.loads(path.read_bytes())
            written = content.pop("digest", None) if isinstance(content, dict) else None
            record = cls.model_validate(content)
            # Records of older versions have no digest.
            if written not in (None, _digest(content)):
                raise InputError(f"{path}: was changed after the run; repeat it with overwrite=true")
            return record
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; is the run finished?") from error
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            reason = f"{type(error).__name__}: it is no JSON that can be read"
            raise InputError(f"{path}: not a results file ({reason}); repeat the run") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "JSON"
            if key == "schema":
                raise InputError(
                    f"{path}: schema {first['input']}, this version reads {SCHEMA}; repeat the run"
                ) from error
            reason = f"{key}: {first['msg'].lower()}"
            raise InputError(f"{path}: not a results file ({reason}); repeat the run") from error

    @property
    def evaluated(self) -> str:
        """The key of the model that calibrators are for: ``fine_tuned``, or the evaluated ``checkpoint``."""
        return "fine_tuned" if self.checkpoint is None else "checkpoint"

    @property
    def name(self) -> str:
        """The run's name in print, with the seed of fine-tuning."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.title or self.experiment}{seed}"

    def rows(self) -> list[tuple[str, StageRecord]]:
        """Source, fine-tuned and calibrated stages: seen-only, then unlabelled ones, oracles last."""
        lanes = list(LANES)
        calibrated = sorted(
            self.stages.calibrated.items(), key=lambda item: lanes.index(item[1].lane or "seen_only")
        )
        source = [] if self.stages.source is None else [("source", self.stages.source)]
        return [*source, ("fine_tuned", self.stages.fine_tuned), *calibrated]

    def scalars(self) -> dict[str, Any]:
        """Scalars of a sweep's table: the main ones of each stage as ``stage/name``; ``selection/name``."""
        result: dict[str, Any] = {f"selection/{name}": value for name, value in self.selection.items()}
        for stage, values in self.rows():
            names = _MAIN_METRICS if values.lane is None else _MOVED_BY_GAMMA
            result |= {f"{stage}/{name}": values.metrics.get(name) for name in names}
            if values.lane is not None:
                result[f"{stage}/gamma"] = values.gamma
        return result

    def lanes(self) -> list[Lane]:
        """The lanes that have calibrators, in the order of their tables; the oracles' is none."""
        return [lane for lane in LANES if lane != "oracle" and self.lane(lane)]

    def lane(self, lane: Lane) -> dict[str, StageRecord]:
        """The calibrated stages of a lane."""
        return {name: stage for name, stage in self.stages.calibrated.items() if stage.lane == lane}


def _digest(content: Any) -> str:
    """A digest of a record's JSON content, however it is laid out, but for times: equal runs have one."""
    lasting = {key: value for key, value in content.items() if key != "timing"}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:16]


def nullable(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers that do not apply (``nan``) as None, JSON's ``null``."""
    return {name: none_if_nan(value) for name, value in values.items()}


def none_if_nan(value: float) -> float | None:
    """``nan`` as None."""
    return None if math.isnan(value) else value


def versions() -> dict[str, str]:
    """Versions of Python, ftc and the libraries that shape numbers; none of them is imported."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
