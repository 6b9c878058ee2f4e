"""List states that any rank may leave empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Stream(Metric):
    """A base for metrics that keep a few numbers a sample, gathered over the ranks.

    torchmetrics gathers a state that a rank never updated as one-dimensional float32, which cannot be joined
    with other ranks' tensors of another dtype or width. Here such a rank gives zero rows of the right kind.

    Args:
        states: dtype and trailing shape of every state, by name.
    """

    full_state_update = False

    def __init__(self, states: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kinds = dict(states)
        for name in states:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def sync(self, *args: Any, **kwargs: Any) -> None:
        for name, (dtype, shape) in self._kinds.items():
            if isinstance(state := getattr(self, name), list) and not state:
                state.append(torch.empty(0, *shape, dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)

    def joined(self, name: str) -> Tensor:
        """A state as one tensor, without rows where nothing was added."""
        return dim_zero_cat(getattr(self, name))
