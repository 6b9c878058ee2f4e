"""Heads other than a plain linear layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# Learned from here on: soft enough to train, sharp enough to tell a few hundred classes apart.
_FIRST_SCALE = 16.0


class CosineHead(nn.Linear):
    """A cosine classifier: logits = scale · cos(features, weight rows) + bias.

    The scale is learned. The bias is not: it is 0 until γ is folded into it.

    Args:
        num_features: width D of the features.
        num_classes: width C of the head.

    Attributes:
        scale: (1,), since FSDP shards no scalar.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__(num_features, num_classes)
        self.scale = nn.Parameter(torch.tensor([_FIRST_SCALE]))
        self.bias.data.zero_()
        self.bias.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, D) → logits (N, C)."""
        unit = nn.functional.normalize(features, dim=-1)
        cosine = nn.functional.linear(unit, nn.functional.normalize(self.weight, dim=-1))
        return self.scale * cosine + self.bias


def head_rows(state: Mapping[str, Tensor], name: str) -> Tensor:
    """The rows (C, D) that a head multiplies features with; a cosine head's are unit rows times its scale.

    Args:
        state: the model's weights.
        name: name of the head among them.
    """
    rows, scale = state[f"{name}.weight"], state.get(f"{name}.scale")
    return rows if scale is None else scale * nn.functional.normalize(rows, dim=-1)
