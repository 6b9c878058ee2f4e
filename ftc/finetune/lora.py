"""LoRA: low-rank changes of linear and convolutional layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ftc.finetune.method import Method, Task
from ftc.models import Classifier

# Of convolutions as well: timm's kinds of them are subclasses.
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LowRank(nn.Module):
    """A weight plus scale · up · down, where up (rows, rank) begins at zero.

    Args:
        weight: (rows, …); what follows the rows is flattened, as in a convolution's matrix.
        rank: at most the smaller side of that matrix.
        scale: factor of the product.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        rank = min(rank, rows, columns)
        self.scale = scale
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.scale * (self.up @ self.down).view(weight.shape)


class LoRA(Method):
    """Low-rank adaptation (Hu et al. 2022) of the backbone's linear and convolutional layers.

    The head trains whole. Everything else, batch statistics included, stays as it is bit for bit. `finish`
    merges the changes: the weights have the names and shapes that they had before.

    Args:
        rank: rank of each change.
        alpha: a change is ``alpha / rank`` times the product of its two factors.
        options: those of every method, see `Method`.
    """

    keeps_statistics = True
    needs_whole_weights = True

    def __init__(self, rank: int = 8, alpha: float = 2.0, **options: Any) -> None:
        super().__init__(**options)
        if rank < 1 or alpha <= 0:
            raise ValueError(f"rank={rank}, alpha={alpha}: choose a rank of 1 or more and an alpha above 0")
        self.title = f"LoRA, rank {rank}"
        self.rank = rank
        self.alpha = alpha

    def prepare(self, classifier: Classifier, task: Task) -> None:
        super().prepare(classifier, task)
        self.freeze(classifier.backbone.parameters())
        self._layers = [
            module
            for module in classifier.backbone.modules()
            if isinstance(module, _LAYERS) and not parametrize.is_parametrized(module)
        ]
        self._factors: list[nn.Parameter] = []
        for layer in self._layers:
            change = LowRank(layer.weight, self.rank, self.alpha / self.rank)
            parametrize.register_parametrization(layer, "weight", change)
            self._factors += change.parameters()

    def parameter_groups(self, classifier: Classifier) -> dict[str, list[nn.Parameter]]:
        return {"factors": self._factors, "head": super().parameter_groups(classifier)["head"]}

    def finish(self, classifier: Classifier) -> bool:
        for layer in self._layers:
            names = [name for name in ("weight", "bias") if hasattr(layer, name)]
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            # In the order that they had before.
            for name in names:
                layer._parameters[name] = layer._parameters.pop(name)
        return super().finish(classifier)
