"""Arithmetic on the weights of two models."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def interpolate_weights(
    source: Mapping[str, Tensor], fine_tuned: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """θ0 + α (θ1 − θ0) for every weight and buffer; counters, which are whole numbers, are θ1's."""
    return {
        name: torch.lerp(source[name].to(value), value, alpha) if value.is_floating_point() else value
        for name, value in fine_tuned.items()
    }
