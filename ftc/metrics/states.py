"""List states that any rank may leave empty, in one order however many ranks there are."""

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

    Ranks take turns: rank r of w has samples r, r + w, … of a data set, as samplers deal them. Gathered rows
    are put back into that order, so that what depends on it, as resampling does, is the same for any w. A
    row's place takes 4 bytes.

    Args:
        states: dtype and trailing shape of every state, by name.
    """

    full_state_update = False

    def __init__(self, states: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kinds = {**states, "place": (torch.int32, ())}
        self._dealt = 0
        self.place: list[Tensor]
        for name in self._kinds:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def places(self, count: int) -> Tensor:
        """The places of the next ``count`` samples of this rank in the data set: int32 (count,)."""
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, world = (
            (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)
        )
        turns = torch.arange(self._dealt, self._dealt + count, dtype=torch.int32, device=self.device)
        self._dealt += count
        return turns * world + rank

    def reset(self) -> None:
        self._dealt = 0
        super().reset()

    def sync(self, *args: Any, **kwargs: Any) -> None:
        for name, (dtype, shape) in self._kinds.items():
            if isinstance(state := getattr(self, name), list) and not state:
                state.append(torch.empty(0, *shape, dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)
        if self._is_synced:
            order = self.joined("place").argsort(stable=True)
            for name in self._kinds:
                setattr(self, name, self.joined(name)[order])

    def joined(self, name: str) -> Tensor:
        """A state as one tensor, without rows where nothing was added."""
        return dim_zero_cat(getattr(self, name))
