"""Nearest-class-mean classification, the paper's probe of feature quality, and the drift of features."""

from __future__ import annotations

from collections.abc import Sequence

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


def imprinted_columns(
    features: Tensor,
    target: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    new: Sequence[int],
    known: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Rows and biases of a linear head for classes that it lacks, from labelled images of the seen classes.

    docs/definitions.md, "New classes", derives them.

    Args:
        features: features (N, D) of images of seen classes, new ones and others.
        target: their labels (N,), head columns.
        weight: the head's rows (C, D), those of new columns included, whose values do not count.
        bias: its biases (C,); None where it has none, which counts as 0.
        new: columns of the classes that the head lacks, each with an image.
        known: columns of the classes that it knows.

    Returns:
        Rows (k, D) and biases (k,) in the order of ``new``, float64.

    Raises:
        InputError: a new class whose images give no direction, or no class that the head knows.
    """
    if not len(known):
        raise InputError("the head knows no class to go by; give weights whose head knows some")
    columns, rows = list(new), weight.double()
    biases = torch.zeros(len(rows), dtype=torch.float64) if bias is None else bias.double()
    means = class_means(features, target, len(rows))
    seen = target.unique()
    directions = means[columns]
    if len(seen) > 1:
        directions = directions - means[seen].mean(0)
    lengths = directions.norm(dim=1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise InputError("a new class has no mean of features of its own; give other images of it")
    added = directions / lengths * rows[list(known)].norm(dim=1).mean()
    level = biases[list(known)].mean().expand(len(columns))
    if len(seen) > 1:
        logits = features.double() @ rows.T + biases
        logits[:, columns] = features.double() @ added.T
        logits[torch.arange(len(target)), target] = torch.nan
        gap = logits[:, list(known)].nanmean(1) - logits[:, columns].nanmean(1)
        level = gap.nanmean().expand(len(columns))
    return added, level.clone()


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
