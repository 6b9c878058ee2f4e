"""The arithmetic of prototypes: what a pool's features add to a head (docs/definitions.md, "Prototypes")."""

from __future__ import annotations

import torch
from torch import Tensor

from ftc.errors import InputError


def variance_ratio(features: Tensor, target: Tensor) -> float:
    """The variance of features within classes, as a multiple of that of the classes' means.

    Args:
        features: labelled features that the model was not trained on, (N, D).
        target: their labels, int64 (N,).

    Returns:
        The ratio; infinite where the means differ by no more than chance, or where nobody can tell, because
        fewer than two classes have two samples.
    """
    classes, counts = target.unique(return_counts=True)
    classes, counts = classes[counts > 1], counts[counts > 1].double()
    if len(classes) < 2:
        return torch.inf
    kept = torch.isin(target, classes)
    member = torch.searchsorted(classes, target[kept])
    x = features[kept].double()
    means = x.new_zeros(len(classes), x.shape[1]).index_add_(0, member, x) / counts[:, None]
    within = float(((x - means[member]) ** 2).sum()) / (len(x) - len(classes))
    spread = float(((means - means.mean(0)) ** 2).sum()) / (len(classes) - 1)
    # The means of samples differ even where those of the classes do not.
    between = spread - within * float((1 / counts).mean())
    return within / between if between > 0 else torch.inf


def prototype_head(
    pool: Tensor,
    logits: Tensor,
    labelled: tuple[Tensor, Tensor],
    shrinkage: float,
    strength: float = 1.0,
    ridge: float = 0.5,
    rounds: int = 10,
) -> tuple[Tensor, Tensor]:
    """What to add to a head, so that it also tells classes by their means in a pool's features.

    EM of a mixture of Gaussians with one covariance, one Gaussian a class, whose classes are told from the
    start by a calibrated model: its logits are part of every round, so that neither forgets the other. Means
    are shrunk towards the pool's; the change of the logits is linear in the features, so that the result is a
    plain head (docs/definitions.md, "Prototypes").

    Args:
        pool: features of unlabelled images, (N, D).
        logits: the calibrated model's logits of these, (N, C).
        labelled: features (M, D) and labels int64 (M,) of images whose classes are known; together they weigh
            no more than the pool.
        shrinkage: the samples that the pool's mean counts for in the mean of a class.
        strength: λ, how much the Gaussians count beside the model.
        ridge: share of the covariance that is replaced by its mean variance in all directions.
        rounds: rounds of EM.

    Returns:
        The change of the head's weight, float64 (C, D), and of its bias, float64 (C,). It is 0 for classes of
        which less than one image is expected among pool and labelled images, and its mean over the others is
        0 as well.

    Raises:
        InputError: features that do not vary, or not in all directions where the ridge is 0.
    """
    center = pool.double().mean(0)
    x, known = pool.double() - center, labelled[0].double() - center
    z = logits.double()
    weight = min(1.0, len(x) / max(len(known), 1))
    counted = torch.bincount(labelled[1], minlength=z.shape[1]).double() * weight
    summed = z.new_zeros(z.shape[1], x.shape[1]).index_add_(0, labelled[1], known) * weight
    total = x.T @ x + weight * known.T @ known
    if not bool(total.diagonal().sum() > 0):
        raise InputError("features of pool and training images do not vary; give more images")
    q = z.softmax(1)
    for step in range(rounds + 1):
        count = q.sum(0) + counted
        # A class may have no image at all, nor the pool's mean.
        means = (q.T @ x + summed) / (count + shrinkage).clamp_min(torch.finfo(z.dtype).tiny)[:, None]
        covariance = (total - (means.T * count) @ means) / count.sum()
        spherical = covariance.diagonal().mean() * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        covariance = torch.lerp(covariance, spherical, ridge)
        try:
            rows = torch.linalg.solve(covariance, means.T).T
        except torch.linalg.LinAlgError as error:
            raise InputError(
                "features of pool and training images do not vary in all directions; give more images, or a "
                "larger ridge"
            ) from error
        bias = -(rows * means).sum(1) / 2
        found = count >= 1
        rows = torch.where(found[:, None], rows - rows[found].mean(0), 0.0) * strength
        bias = torch.where(found, bias - bias[found].mean(), 0.0) * strength
        if step < rounds:
            q = (z + x @ rows.T + bias).softmax(1)
    return rows, bias - rows @ center


def align_norms(weight: Tensor, seen: list[int], absent: list[int]) -> Tensor:
    """Weight aligning: the rows of seen classes, scaled to the mean norm of absent ones.

    Source: Zhao et al. 2020, "Maintaining Discrimination and Fairness in Class Incremental Learning", where
    the rows of new classes have grown.

    Args:
        weight: the head's weight (C, D).
        seen, absent: columns.

    Returns:
        The weight, float64 (C, D).

    Raises:
        InputError: no absent class, or rows of zeros.
    """
    rows = weight.double().clone()
    norms = rows.norm(dim=1)
    if not absent or not bool(norms[seen].mean() > 0):
        raise InputError("no norms to align; the head needs rows of seen and of absent classes")
    rows[seen] *= norms[absent].mean() / norms[seen].mean()
    return rows
