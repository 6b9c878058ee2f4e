"""The interface of every γ estimator."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

import attrs
import torch

from ftc.calibrators.evidence import Evidence
from ftc.calibrators.folds import FoldPlan
from ftc.calibrators.weights import LinearHead, WeightPath
from ftc.errors import InputError
from ftc.functional.accuracy import Criterion, check_criterion
from ftc.functional.bootstrap import Interval, check_bootstrap, percentile_interval
from ftc.results import Lane

E = TypeVar("E", bound=Evidence)
# The labelled seen samples that a calibrator takes: those trained on, or those held out of fine-tuning.
SeenData = Literal["train", "held_out"]


@dataclass(frozen=True)
class Calibration:
    """γ and its provenance.

    Attributes:
        gamma: γ in logits.
        uses: the data that γ was estimated from, in words.
        lane: ``seen_only``, ``unlabelled`` (target images without labels as well) or ``oracle`` (evaluated
            labels: a bound or a leak, never a calibrator to deploy).
        details: further estimated numbers by name.
        head: the head that γ is for, where the calibrator moves its rows; None for the model's own.
    """

    gamma: float
    uses: tuple[str, ...]
    lane: Lane = "seen_only"
    details: Mapping[str, float] = field(default_factory=dict)
    head: LinearHead | None = None


class Calibrator(ABC, Generic[E]):
    """An estimator of γ from one type of evidence.

    A calibrator says what it needs; whoever runs it asks these attributes and nothing else.

    Attributes:
        title: the calibrator's name in print.
        lane: the lane in which its results are compared.
        evidence: the type that `fit` takes; callers hand over evidence of this type.
        on: the labelled seen samples that its `SeenEvidence` holds.
        source: whether its evidence must hold the source model's numbers.
        held_out: whether it needs labelled seen samples that were held out of fine-tuning.
        folds: the further fine-tunes that its evidence comes from, None for none.
        weights: the weights that its γ is for, None for the fine-tuned model's.
        moves_head: whether its fit holds a head of its own, which γ is for.
        calibration: the latest fit, None before the first.
    """

    title: str
    lane: Lane = "seen_only"
    evidence: type[Evidence]
    on: SeenData | Literal["eval"] = "train"
    source: bool = False
    held_out: bool = False
    folds: FoldPlan | None = None
    weights: WeightPath | None = None
    moves_head: bool = False
    calibration: Calibration | None = None

    @property
    def compares(self) -> bool:
        """Whether γ̂ rests on what the source model makes of the seen classes, which it must know then.

        Folds do as well: they fine-tune the source model with some of these as pseudo-absent classes.
        """
        return self.source or self.folds is not None or self.weights is not None

    @property
    def moves(self) -> bool:
        """Whether γ̂ is for other weights than those of the fine-tuned model, in backbone or head."""
        return self.weights is not None or self.moves_head

    @abstractmethod
    def estimate(self, evidence: E) -> Calibration:
        """Estimate γ from the evidence; a pure function.

        Raises:
            InputError: the evidence does not suffice.
        """

    def fit(self, evidence: E) -> Calibration:
        """Estimate γ and remember it.

        Raises:
            InputError: the evidence does not suffice, or γ is not a finite number.
        """
        calibration = self.estimate(evidence)
        if not math.isfinite(calibration.gamma):
            raise InputError(
                f"{type(self).__name__}: γ={calibration.gamma} from {evidence.origin}; "
                "γ needs an absent class and finite logits"
            )
        self.calibration = calibration
        return calibration

    def state_dict(self) -> dict[str, Any]:
        """The latest fit in plain types; empty before the first."""
        if self.calibration is None:
            return {}
        head = self.calibration.head
        state = asdict(replace(self.calibration, head=None))
        return {**state, "head": None if head is None else attrs.asdict(head)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a fit from `state_dict`."""
        head = state.get("head")
        moved = None if head is None else LinearHead(**head)
        self.calibration = Calibration(**{**state, "head": moved}) if state else None


def by_criterion(title: str, criterion: Criterion) -> str:
    """The title of a calibrator that maximises a criterion, which it names unless that is Acc_{Y/Y}.

    Raises:
        InputError: an unknown criterion.
    """
    check_criterion(criterion)
    return title if criterion == "acc_all" else f"{title}, {criterion}"


def bootstrap_gamma(
    calibrator: Calibrator[E], evidence: E, replicates: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of γ̂, in logits: the estimate repeated on resampled evidence.

    Args:
        calibrator: the calibrator whose estimate is repeated.
        evidence: the evidence it was fitted on; a replicate draws as many samples from it, with replacement.
        replicates: number of replicates.
        seed: the same seed gives the same interval.
        confidence: share of the replicates inside the interval.

    Returns:
        (low, high).

    Raises:
        InputError: see `check_bootstrap`; evidence that does not suffice.
    """
    check_bootstrap(replicates, confidence)
    generator = torch.Generator().manual_seed(seed)
    gammas = [calibrator.estimate(evidence.resampled(generator)).gamma for _ in range(replicates)]  # type: ignore[arg-type]
    return percentile_interval(torch.tensor(gammas, dtype=torch.float64), confidence)
