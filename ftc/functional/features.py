"""Nearest-class-mean classification, the paper's probe of feature quality, and the drift of features."""

from __future__ import annotations

import torch
from torch import Tensor

from ftc.errors import InputError

# It lies below any cosine, so a class without a mean is never predicted, yet its logit stays finite.
NO_MEAN = -2.0


def class_sums(features: Tensor, target: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sums of L2-normalised features by class, float64 (C, D), and the counts, int64 (C,)."""
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    sums = torch.zeros(num_classes, unit.shape[1], dtype=unit.dtype, device=unit.device)
    sums.index_add_(0, target.long(), unit)
    return sums, torch.bincount(target.long(), minlength=num_classes)


def class_means(features: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Class means of L2-normalised features (N, D), float64 (C, D); a row of ``nan`` without samples."""
    sums, counts = class_sums(features, target, num_classes)
    return sums / counts[:, None]


def cosine_logits(features: Tensor, means: Tensor) -> Tensor:
    """Cosine of features (N, D) to class means (C, D), float64 (N, C); −2 for a class without a mean."""
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    cosine = unit @ torch.nn.functional.normalize(means, dim=1).T
    return cosine.masked_fill(means.isnan().any(1), NO_MEAN)


def feature_change(features: Tensor, source_features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The change of each image's features (N, D) by fine-tuning, in three numbers: float64 (N,) each.

    Returns:
        The cosine of new to old features, their L2 distance, and the old ones' L2 norm.

    Raises:
        InputError: shapes that differ.
    """
    if features.shape != source_features.shape:
        raise InputError(
            f"features have shape {tuple(features.shape)}, the source model's "
            f"{tuple(source_features.shape)}; give both for the same images"
        )
    new, old = features.double(), source_features.double()
    cosine = torch.nn.functional.cosine_similarity(new, old, dim=1)
    return cosine, (new - old).norm(dim=1), old.norm(dim=1)
