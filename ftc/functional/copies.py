"""Near copies: images of V that are nearly an image that is trained on."""

from __future__ import annotations

import torch
from torch import Tensor

# Directions of the features that are compared, and the largest distance of a near copy in units of the median
# distance inside its class.
_DIRECTIONS = 64
_NEAR = 0.4

# More images than these, evenly spaced, make the estimates no better.
_FITTED, _LOOKED_AT = 10_000, 1_000


def near_copies(features: Tensor, target: Tensor, trained: Tensor, trained_target: Tensor) -> float:
    """The share of images that are nearly an image that is trained on (docs/definitions.md, "Near copies").

    Args:
        features: (N, D), features of the images; at most 1,000 of them, evenly spaced, are looked at.
        target: int64 (N,), their labels.
        trained: (M, D), features of the images that are trained on.
        trained_target: int64 (M,), their labels.

    Returns:
        A fraction; ``nan`` where no class has an image and two that are trained on. In few directions many
        images have a near one by chance: classes of which so many are trained on are left out.
    """
    unit = torch.nn.functional.normalize(trained.double(), dim=1)
    rows = _spaced(len(features), _LOOKED_AT)
    looked_at, labels = torch.nn.functional.normalize(features[rows].double(), dim=1), target[rows]
    classes, index = trained_target.unique(return_inverse=True)
    counts = torch.bincount(index)
    means = torch.zeros(len(classes), unit.shape[1], dtype=unit.dtype).index_add_(0, index, unit)
    inside = (unit - (means / counts[:, None])[index])[_spaced(len(unit), _FITTED)]
    # All directions count alike: a class differs from others in a few, which say little about its images.
    variances, directions = torch.linalg.eigh(inside.T @ inside)
    varied = variances.flip(0)[:_DIRECTIONS] > 1e-9 * variances.max()
    whitening = (directions.flip(1)[:, :_DIRECTIONS] / variances.flip(0)[:_DIRECTIONS].sqrt())[:, varied]
    near, compared = 0, 0
    for number, label in enumerate(classes.tolist()):
        of_class = looked_at[labels == label]
        # In D directions a share of about 0.4^D is that near without being a copy.
        by_chance = int(counts[number]) * _NEAR ** int(varied.sum()) > 1
        if counts[number] > 1 and len(of_class) and not by_chance:
            distances = torch.cdist(of_class @ whitening, unit[index == number] @ whitening)
            near += int((distances.amin(1) < _NEAR * distances.median(1).values).sum())
            compared += len(of_class)
    return near / compared if compared else float("nan")


def _spaced(count: int, most: int) -> Tensor:
    """At most so many rows of ``count``, evenly spaced."""
    return torch.arange(min(count, most)) * count // max(min(count, most), 1)
