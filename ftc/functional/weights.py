"""Arithmetic on the weights of two models."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def interpolate_weights(
    source: Mapping[str, Tensor], fine_tuned: Mapping[str, Tensor], alpha: float | Mapping[str, float]
) -> dict[str, Tensor]:
    """θ0 + α (θ1 − θ0) for every weight and buffer; counters, which are whole numbers, are θ1's.

    Args:
        source: θ0, by name.
        fine_tuned: θ1, by name.
        alpha: one α, or one for each name.
    """
    alphas = dict.fromkeys(fine_tuned, alpha) if isinstance(alpha, float | int) else alpha
    return {
        name: torch.lerp(source[name].to(value), value, alphas[name]) if value.is_floating_point() else value
        for name, value in fine_tuned.items()
    }
