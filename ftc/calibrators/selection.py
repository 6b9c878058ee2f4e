"""Which evidence a calibrator gets: the one place where data and methods meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftc.calibrators.base import Calibration, Calibrator, SeenData
from ftc.calibrators.evidence import (
    Evidence,
    FoldEvidence,
    NoEvidence,
    OracleEvidence,
    SeenEvidence,
    UnlabelledEvidence,
)
from ftc.calibrators.pseudo_cv import FoldPlan, PseudoCrossValidation
from ftc.errors import InputError


@dataclass(frozen=True)
class Available:
    """All evidence at hand.

    Attributes:
        seen: labelled seen samples, those trained on and those held out.
        unlabelled: the pool, or None.
        folds: of pseudo cross-validation, by plan.
        evaluated: the evaluated samples with all labels, for oracles only; or None.
    """

    seen: Mapping[SeenData, SeenEvidence] = field(default_factory=dict)
    unlabelled: UnlabelledEvidence | None = None
    folds: Mapping[FoldPlan, FoldEvidence] = field(default_factory=dict)
    evaluated: OracleEvidence | None = None

    def of(self, calibrator: Calibrator[Any]) -> Evidence | None:
        """The evidence of the type that a calibrator takes, None where there is none."""
        if calibrator.evidence is SeenEvidence:
            return None if calibrator.on == "eval" else self.seen.get(calibrator.on)
        if isinstance(calibrator, PseudoCrossValidation):
            return self.folds.get(calibrator.plan)
        return {
            NoEvidence: NoEvidence(),
            UnlabelledEvidence: self.unlabelled,
            OracleEvidence: self.evaluated,
        }.get(calibrator.evidence)


_SEEN_IN_WORDS = {
    "train": "labelled seen training samples",
    "held_out": "labelled seen samples held out of fine-tuning (validation samples of seen classes)",
}
_IN_WORDS: dict[type[Evidence], str] = {
    UnlabelledEvidence: "an unlabelled pool of target images",
    FoldEvidence: "the folds of pseudo cross-validation, which a run of ftc.train makes",
    OracleEvidence: "evaluated samples with labels",
}


def fit_all(calibrators: Mapping[str, Calibrator[Any]], available: Available) -> dict[str, Calibration]:
    """Fit every calibrator; one that looks at evaluated labels is named oracle whatever it was called.

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
