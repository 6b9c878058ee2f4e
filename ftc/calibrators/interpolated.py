"""Weights moved part of the way back to the source model, then calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ftc.calibrators.base import Calibration, Calibrator
from ftc.calibrators.evidence import Evidence
from ftc.errors import InputError

ALPHAS = (0.5, 0.625, 0.75, 0.875)


class Interpolated(Calibrator[Evidence]):
    """A calibrator applied to the model with weights θ0 + α (θ1 − θ0), source to fine-tuned.

    It wants the evidence of *that* model, which the caller makes (`ftc.models.interpolate_weights`) and
    evaluates. Its accuracies are that model's (PROTOCOL: ``interpolated``).

    Args:
        calibrator: estimates γ from the interpolated model's evidence.
        alpha: α; 0 is the source model, 1 the fine-tuned one. None chooses it, see `choose`.
        alphas: choices beside 0 and 1 where ``alpha`` is None.
        tolerance: how much accuracy inside S the choice may cost, a fraction.

    Raises:
        InputError: α outside [0, 1], or a calibrator that cannot be one.
    """

    def __init__(
        self,
        calibrator: Calibrator[Any],
        alpha: float | None = None,
        alphas: Sequence[float] = ALPHAS,
        tolerance: float = 0.01,
    ) -> None:
        for value in (*alphas, *(() if alpha is None else (alpha,))):
            if not 0 <= value <= 1:
                raise InputError(f"alpha={value}: give a share between 0, the source model, and 1")
        if not isinstance(calibrator, Calibrator) or isinstance(calibrator, Interpolated):
            raise InputError(f"calibrator={calibrator!r}: give one that estimates γ from evidence")
        self.alpha = alpha
        self.alphas = tuple(sorted(alphas))
        self.tolerance = tolerance
        self.inner = calibrator
        self.evidence = calibrator.evidence
        self.lane = calibrator.lane
        self.on = calibrator.on
        self.needs_source = calibrator.needs_source

    @property
    def needs_held_out(self) -> bool:
        return self.alpha is None or self.inner.needs_held_out

    def choose(self, hits: Mapping[float, Tensor]) -> float:
        """The smallest α, 0 aside, that costs held-out seen samples no more than the tolerance.

        Where even the fine-tuned model does, because fine-tuning went wrong, the source model: 0.

        Args:
            hits: by α, 0 and 1 among them: argmax_F z = y of held-out seen samples, bool (N,); none where a
                logit is not finite.
        """
        accuracy = {alpha: float(hit.double().mean()) for alpha, hit in hits.items() if len(hit)}
        floor = max(accuracy.get(0.0, 0.0), accuracy.get(1.0, 0.0)) - self.tolerance
        admitted = [alpha for alpha, value in accuracy.items() if alpha > 0 and value >= floor]
        return min(admitted, default=0.0)

    def estimate(self, evidence: Evidence) -> Calibration:
        calibration = self.inner.estimate(evidence)
        uses = dict.fromkeys((*calibration.uses, "source model"))
        details = dict(calibration.details)
        if self.alpha is not None:
            details["alpha"] = self.alpha
        return replace(calibration, uses=tuple(uses), details=details)
