"""What fine-tuning does to features: how alike two representations are, and where classes move."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from ftc.errors import InputError


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two models' features of the same images.

    Source: Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited". A rotation or a
    scale of either features does not change it. Time grows linearly in the number of images.

    Args:
        first, second: features (N, D1) and (N, D2).

    Returns:
        A number from 0 to 1, where 1 is the same up to rotation and scale; ``nan`` where features of either
        do not vary.

    Raises:
        InputError: another number of images.
    """
    if len(first) != len(second):
        raise InputError(
            f"features are of {len(first)} and of {len(second)} images; give both for the same images"
        )
    x, y = (features.double() - features.double().mean(0) for features in (first, second))
    if len(x) < max(x.shape[1], y.shape[1]):
        k, h = x @ x.T, y @ y.T
        shared = (k * h).sum()
    else:
        k, h = x.T @ x, y.T @ y
        shared = (x.T @ y).square().sum()
    return float(shared / (k.norm() * h.norm()))


@frozen(eq=False)
class ClassShift:
    """Where the means of classes were before fine-tuning, and where they are now.

    Attributes:
        columns: the K classes with samples, head columns, ascending.
        source, fine_tuned: coordinates of their means, float64 (K, 2), in the plane in which the means of
            both models together vary most.
        explained: the share of that variance along each axis, float64 (2,); ``nan`` where there is none.
        drift: L2 distance of new to old mean as a multiple of the old means' mean distance to their centre,
            float64 (K,); ``nan`` where all old means are one.
        cosine: cosine of new to old mean, float64 (K,).
    """

    columns: Tensor
    source: Tensor
    fine_tuned: Tensor
    explained: Tensor
    drift: Tensor
    cosine: Tensor


def class_shift(source: Tensor, fine_tuned: Tensor, target: Tensor) -> ClassShift:
    """The shift of class means by fine-tuning (the paper, on how features move).

    Args:
        source, fine_tuned: features of the same images by both models, (N, D) with N > 0.
        target: their labels, int64 (N,).
    """
    columns, member = target.unique(return_inverse=True)
    before, after = (_means(features, member, len(columns)) for features in (source, fine_tuned))
    radius = (before - before.mean(0)).norm(dim=1).mean()
    coordinates, explained = principal_plane(torch.cat((before, after)))
    return ClassShift(
        columns=columns,
        source=coordinates[: len(columns)],
        fine_tuned=coordinates[len(columns) :],
        explained=explained,
        drift=torch.where(radius > 0, (after - before).norm(dim=1) / radius, torch.nan),
        cosine=torch.nn.functional.cosine_similarity(after, before, dim=1),
    )


def _means(features: Tensor, member: Tensor, count: int) -> Tensor:
    """Means of features (N, D) by class, float64 (count, D)."""
    sums = torch.zeros(count, features.shape[1], dtype=torch.float64, device=features.device)
    sums.index_add_(0, member, features.double())
    return sums / torch.bincount(member, minlength=count)[:, None]


def principal_plane(points: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of points in the plane in which they vary most (PCA).

    Args:
        points: (M, D).

    Returns:
        Coordinates, float64 (M, 2), whose largest magnitude along each axis is positive, so that equal points
        give equal pictures; and the share of the variance along each axis, ``nan`` where points do not vary.
    """
    x = points.double() - points.double().mean(0)
    wide = x.shape[1] > len(x)
    values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    # Values ascend; rounding may leave those that are 0 slightly below it.
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)[:, :2]
    total = values.sum()
    coordinates = vectors * values[:2].sqrt() if wide else x @ vectors
    largest = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True))
    coordinates = torch.where(largest < 0, -coordinates, coordinates)
    missing = 2 - coordinates.shape[1]  # a line has one axis alone
    pad = torch.nn.functional.pad
    return pad(coordinates, (0, missing)), pad(values[:2] / total, (0, missing))
