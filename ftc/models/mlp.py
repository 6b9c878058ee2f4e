"""A small multi-layer perceptron in timm's registry, for inputs of a few values."""

from __future__ import annotations

import math
from typing import Any

import timm.models
from torch import Tensor, nn


class SmallMLP(nn.Module):
    """Linear layers with ReLU between them, none behind the features, and a linear head.

    Args:
        num_classes: width C of the head; 0 for none.
        in_chans, img_size: channels, and height and width, of an input.
        hidden: width of the hidden layer.
        num_features: width D of the features.
    """

    def __init__(
        self,
        num_classes: int = 4,
        in_chans: int = 1,
        img_size: tuple[int, int] = (1, 2),
        hidden: int = 32,
        num_features: int = 2,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        values = in_chans * math.prod(img_size)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(values, hidden), nn.ReLU(), nn.Linear(hidden, num_features)
        )
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The head, as timm asks for it."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Give the model a new head, or none where ``num_classes`` is 0."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Inputs (N, channels, H, W) → logits (N, C)."""
        return self.head(self.layers(images))


default_cfgs = {
    "small_mlp": {
        "num_classes": 4,
        "input_size": (1, 1, 2),
        "fixed_input_size": True,
        "mean": (0.5,),
        "std": (0.5,),
        "classifier": "head",
    }
}


@timm.models.register_model
def small_mlp(pretrained: bool = False, **kwargs: Any) -> SmallMLP:
    """`SmallMLP` under the name that ``model.name`` gives to timm; it has no pre-trained weights."""
    return timm.models.build_model_with_cfg(SmallMLP, "small_mlp", pretrained, **kwargs)
