"""The choice of the evidence that a calibrator gets: the one place where data and calibrators meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import attrs
from attrs import frozen

from ftc.calibrators.base import Calibration, Calibrator, SeenData
from ftc.calibrators.evidence import (
    Evidence,
    FeatureEvidence,
    FoldEvidence,
    HeadEvidence,
    NoEvidence,
    OracleEvidence,
    SeenEvidence,
    UnlabelledEvidence,
)
from ftc.calibrators.folds import FoldPlan
from ftc.errors import InputError
from ftc.functional import PoolStatistics, SeenStatistics
from ftc.partition import ClassPartition

_ORIGINS: dict[SeenData, str] = {"train": "seen train", "held_out": "seen val"}


@frozen(eq=False)
class Observed:
    """The calibration data under one model; `attrs.asdict` gives what checkpoints keep of it.

    Attributes:
        seen: labelled seen samples, those trained on and those held out of fine-tuning.
        pool: unlabelled images, or None.
    """

    seen: Mapping[SeenData, SeenStatistics] = attrs.field(factory=dict)
    pool: PoolStatistics | None = None

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Observed:
        """The object that `attrs.asdict` took apart."""
        pool = state["pool"]
        return cls(
            {on: SeenStatistics(**fields) for on, fields in state["seen"].items()},
            None if pool is None else PoolStatistics(**pool),
        )


@dataclass(frozen=True)
class Available:
    """All evidence at hand.

    Attributes:
        seen: labelled seen samples, those trained on and those held out.
        unlabelled: the pool, or None.
        folds: the folds of pseudo cross-validation, by plan.
        evaluated: the evaluated samples with all labels, for oracles only; or None.
        head: the model's head; or None.
        features: the pool's features, and those of labelled seen samples; or None.
    """

    seen: Mapping[SeenData, SeenEvidence] = field(default_factory=dict)
    unlabelled: UnlabelledEvidence | None = None
    folds: Mapping[FoldPlan, FoldEvidence] = field(default_factory=dict)
    evaluated: OracleEvidence | None = None
    head: HeadEvidence | None = None
    features: FeatureEvidence | None = None

    @classmethod
    def from_observed(
        cls,
        fine_tuned: Observed,
        source: Observed,
        partition: ClassPartition,
        pool_origin: str = "unlabelled pool",
        folds: Mapping[FoldPlan, FoldEvidence] | None = None,
    ) -> Available:
        """The evidence that the same data give under the fine-tuned and the source model.

        Args:
            fine_tuned: the data under the model to be calibrated.
            source: the data under the source model; empty where that was not evaluated.
            partition: seen, absent and other columns.
            pool_origin: where the pool's images come from, in words.
            folds: the folds of pseudo cross-validation, by plan.
        """
        seen = {
            on: SeenEvidence(_ORIGINS[on], statistics, partition, source.seen.get(on))
            for on, statistics in fine_tuned.seen.items()
        }
        unlabelled = None
        if fine_tuned.pool is not None:
            held_out = seen.get("held_out")
            unlabelled = UnlabelledEvidence(pool_origin, fine_tuned.pool, partition, source.pool, held_out)
        return cls(seen, unlabelled, folds or {})

    def of(self, calibrator: Calibrator[Any]) -> Evidence | None:
        """The evidence of the type that a calibrator takes, or None where there is none."""
        if calibrator.folds is not None:
            return self.folds.get(calibrator.folds)
        if calibrator.evidence is SeenEvidence:
            return None if calibrator.on == "eval" else self.seen.get(calibrator.on)
        return {
            NoEvidence: NoEvidence(),
            UnlabelledEvidence: self.unlabelled,
            OracleEvidence: self.evaluated,
            HeadEvidence: self.head,
            FeatureEvidence: self.features,
        }.get(calibrator.evidence)


def check_new_classes(calibrators: Mapping[str, Calibrator[Any]], new: Sequence[str]) -> None:
    """Refuse calibrators that compare with the source model on classes that it does not know.

    Args:
        calibrators: the calibrators in use, by name.
        new: names of the seen classes that the source model had never been given.

    Raises:
        InputError: a calibrator that compares, see `Calibrator.compares`.
    """
    refused = [name for name, calibrator in calibrators.items() if calibrator.compares]
    if not new or not refused:
        return
    kept = [name for name in calibrators if name not in refused] or ["alg"]
    classes = ", ".join(new[:3]) + (", …" if new[3:] else "")
    raise InputError(
        f"calibration.use=[{', '.join(calibrators)}]: {', '.join(refused)} would compare with the source "
        f"model, which was never given {classes}; set calibration.use=[{', '.join(kept)}], or others of alg, "
        "prior_matched, margin_mixture, weight_aligning and fixed, which look at the fine-tuned model alone"
    )


_SEEN_IN_WORDS = {
    "train": "labelled seen training samples",
    "held_out": "labelled seen samples held out of fine-tuning (validation samples of seen classes)",
}
_IN_WORDS: dict[type[Evidence], str] = {
    UnlabelledEvidence: "an unlabelled pool of target images",
    FoldEvidence: "the folds of pseudo cross-validation, which a run of ftc.train makes",
    OracleEvidence: "evaluated samples with labels",
    HeadEvidence: "the model's head, which a run of ftc.train has",
    FeatureEvidence: "features of an unlabelled pool and the model's head, which a run of ftc.train has",
}


def fit_all(calibrators: Mapping[str, Calibrator[Any]], available: Available) -> dict[str, Calibration]:
    """Fit every calibrator and return the fits by `reported_name`.

    Raises:
        InputError: evidence that is missing or does not suffice, with the calibrator's name.
    """
    result = {}
    for name, calibrator in calibrators.items():
        evidence = available.of(calibrator)
        if evidence is None:
            kind = calibrator.evidence
            wanted = (
                _SEEN_IN_WORDS[calibrator.on] if kind is SeenEvidence else _IN_WORDS.get(kind, kind.__name__)
            )
            raise InputError(f"{name} needs {wanted}; give them, or leave the calibrator out")
        try:
            calibration = calibrator.fit(evidence)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        result[reported_name(name, calibrator)] = calibration
    return result


def reported_name(name: str, calibrator: Calibrator[Any]) -> str:
    """A calibrator's name in tables and logs: ``…_oracle`` where it looks at evaluated labels."""
    return f"{name}_oracle" if calibrator.lane == "oracle" and "oracle" not in name else name
