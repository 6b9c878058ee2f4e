"""Reading list states."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat


def joined(state: list[Tensor] | Tensor) -> Tensor:
    """A list state as one tensor, float64 (0,) where empty; synchronised states are one already."""
    if isinstance(state, list) and not state:
        return torch.empty(0, dtype=torch.float64)
    return dim_zero_cat(state)
