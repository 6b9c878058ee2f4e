"""Weights moved part of the way back to the source model, then calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ftc.calibrators.base import Calibration, Calibrator
from ftc.calibrators.evidence import Evidence
from ftc.calibrators.seen_only import Committee
from ftc.calibrators.weights import WeightPath
from ftc.errors import InputError
from ftc.functional.gamma import is_no_worse
from ftc.functional.weights import interpolate_weights

ALPHAS = (0.625, 0.75, 0.875)


class StraightLine(WeightPath):
    """The path θ0 + α (θ1 − θ0), with α given or chosen on held-out seen samples.

    Args:
        alpha: 0 is the source model, 1 the fine-tuned one; None lets `choose` decide.
        candidates: the α to choose from, beside 0 and 1, where ``alpha`` is None.
        tolerance: how much Acc_{S/F} on held-out seen samples the choice may cost, a fraction; or one
            standard error, where that is more.

    Raises:
        InputError: an α outside [0, 1].
    """

    def __init__(self, alpha: float | None, candidates: Sequence[float], tolerance: float) -> None:
        for value in (*candidates, *(() if alpha is None else (alpha,))):
            if not 0 <= value <= 1:
                raise InputError(f"alpha={value}: give a share between 0, the source model, and 1")
        self.alpha = alpha
        self.candidates = tuple(sorted(candidates))
        self.tolerance = tolerance

    @property
    def family(self) -> str:
        return "straight line"

    def at(
        self, source: Mapping[str, Tensor], fine_tuned: Mapping[str, Tensor], alpha: float
    ) -> dict[str, Tensor]:
        return interpolate_weights(source, fine_tuned, alpha)

    def choose(self, hits: Mapping[float, Tensor]) -> float:
        """The smallest α above 0 that costs held-out seen samples no more than the tolerance.

        Where even the fine-tuned model costs more, because fine-tuning went wrong, the choice is 0.
        """
        finite = {alpha: hit for alpha, hit in hits.items() if len(hit)}
        ends = [finite[alpha] for alpha in (1.0, 0.0) if alpha in finite]
        if not ends:
            return 0.0
        best = max(ends, key=lambda hit: float(hit.double().mean()))
        return min(
            (a for a, hit in finite.items() if a > 0 and is_no_worse(hit, best, self.tolerance)), default=0.0
        )


class Interpolated(Calibrator[Evidence]):
    """A calibrator applied to the model with weights θ0 + α (θ1 − θ0), source to fine-tuned.

    Its evidence and its accuracies are those of the interpolated model
    (docs/definitions.md, "Estimators of γ").

    Args:
        calibrator: the calibrator that estimates γ from the interpolated model's evidence.
        alpha, alphas, tolerance: see `StraightLine`.

    Raises:
        InputError: an α outside [0, 1], or a calibrator that moves weights itself or is none.
    """

    def __init__(
        self,
        calibrator: Calibrator[Any],
        alpha: float | None = None,
        alphas: Sequence[float] = ALPHAS,
        tolerance: float = 0.005,
    ) -> None:
        if not isinstance(calibrator, Calibrator) or calibrator.weights is not None:
            raise InputError(f"calibrator={calibrator!r}: give one that estimates γ from evidence")
        self.weights = StraightLine(alpha, alphas, tolerance)
        self.inner = calibrator
        self.lane = calibrator.lane
        self.evidence = calibrator.evidence
        self.on = calibrator.on
        self.source = calibrator.source
        self.held_out = alpha is None or calibrator.held_out
        self.moves_head = calibrator.moves_head
        where = "interpolated" if alpha is None else f"interpolated, α = {alpha:g}"
        usual = calibrator.title == Committee.title
        self.title = where if usual else f"{where}, {calibrator.title}"

    def estimate(self, evidence: Evidence) -> Calibration:
        calibration = self.inner.estimate(evidence)
        return replace(calibration, uses=tuple(dict.fromkeys((*calibration.uses, "source model"))))
