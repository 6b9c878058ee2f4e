"""Shares of classes in an unlabelled pool (docs/definitions.md, "EM shares")."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.inputs import as_tensor, check_finite
from ftc.functional.outcomes import blocks


def class_shares(logits: Any, prior: Any = None, steps: int = 1000, tolerance: float = 1e-7) -> Tensor:
    """Shares of the classes in an unlabelled pool, by EM from the probabilities of a classifier.

    With p the softmax of the logits, each step re-weights the probabilities and takes their mean,
    q_ic ∝ p_ic · share_c / prior_c and share_c ← mean of q_ic over i, beginning with the prior (Saerens,
    Latinne, Decaestecker, Neural Computation 14, 2002). No step lowers the likelihood of the pool.

    Not for every classifier: the shares are as wrong as p is miscalibrated under the prior, and a class that
    training never showed the classifier has no meaningful prior. Give the logits of the source model, not
    those of the model that was fine-tuned on some of the classes.

    Args:
        logits: (N, C), tensor on any device or array; beside them a few MiB are needed.
        prior: shares of the classes in the classifier's training, fractions (C,); None: all alike.
        steps: the most EM steps.
        tolerance: the iteration ends once every share changes by less than this.

    Returns:
        Shares, fractions, float64 (C,).

    Raises:
        InputError: not two-dimensional, no rows, or no floating-point numbers; values that are not finite; a
            prior of another length, not positive, or whose sum is not 1.

    >>> p = torch.tensor([[0.9, 0.1]] * 7 + [[0.1, 0.9]] * 3)
    >>> [round(share, 3) for share in class_shares(p.log()).tolist()]  # 0.7 = 0.75 · 0.9 + 0.25 · 0.1
    [0.75, 0.25]
    """
    z = as_tensor(logits)
    if z.ndim != 2 or not z.is_floating_point():
        raise InputError(
            f"logits have shape {tuple(z.shape)} and dtype {z.dtype}; give floating-point logits (N, C)"
        )
    if len(z) == 0:
        raise InputError("logits are empty; give at least one sample")
    check_finite(z)
    given = _prior(prior, z.shape[1]).to(z.device)
    shares = given / given.sum()
    for _ in range(steps):
        before, shares = shares, torch.zeros_like(shares)
        # What p and z differ by is the same in all columns of a row. A share of 0 counts as −∞.
        weight = before.log() - given.log()
        for rows in blocks(z):
            shares += (z[rows].double() + weight).softmax(1).sum(0)
        shares /= len(z)
        if float((shares - before).abs().max()) < tolerance:
            break
    return shares


def _prior(prior: Any, size: int) -> Tensor:
    """Training shares as float64 (size,), all positive and of sum 1."""
    if prior is None:
        return torch.full((size,), 1 / size, dtype=torch.float64)
    given = as_tensor(prior).double()
    if given.shape != (size,):
        raise InputError(
            f"prior has shape {tuple(given.shape)}; give one share for each of the {size} columns, ({size},)"
        )
    wrong = (~(given > 0)).nonzero()[:, 0]
    if len(wrong):
        raise InputError(
            f"prior[{int(wrong[0])}]={float(given[wrong[0]])}: give positive shares, "
            "and no columns of classes that training did not have"
        )
    total = float(given.sum())
    if not abs(total - 1) < 1e-6:
        raise InputError(f"prior sums to {total}; divide it by its sum")
    return given
