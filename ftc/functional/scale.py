"""Logit scales, the paper's evidence that only the scale of logits breaks (its section on logits).

See docs/definitions.md, "Metrics".
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ftc.functional.inputs import ABSENT, SEEN, as_logits, check_finite, check_target, columns, label_groups
from ftc.partition import ClassPartition, Group

SAMPLE_GROUPS: tuple[tuple[str, int], ...] = (("seen", SEEN), ("absent", ABSENT))


def scale_terms(logits: Any, target: Any, partition: ClassPartition) -> dict[str, Tensor]:
    """Terms of each sample by name, float64 (N,); ``nan`` where a term has no column to run over.

    ``ground_truth`` is the label's logit. Over the columns S (``seen``) and U (``absent``), ``…_mean`` is the
    mean logit without the label's own, ``…_max`` the largest, ``…_rival`` the largest but the label's own.
    """
    z = as_logits(logits, partition)
    y = check_target(target, z, partition)
    check_finite(z)
    z = z.double()
    terms = {"ground_truth": z.gather(1, y[:, None])[:, 0]}
    groups: tuple[Group, Group] = ("seen", "absent")
    for name in groups:
        ids = columns(partition, name, z.device)
        if len(ids) == 0:
            terms |= {
                f"{name}_{stat}": torch.full_like(z[:, 0], math.nan) for stat in ("mean", "max", "rival")
            }
            continue
        own = ids == y[:, None]
        rivals = len(ids) - own.sum(1)
        block = z[:, ids]
        terms[f"{name}_mean"] = block.masked_fill(own, 0.0).sum(1) / rivals
        terms[f"{name}_max"] = block.amax(1)
        rival = block.masked_fill(own, -torch.inf).amax(1)
        terms[f"{name}_rival"] = rival.masked_fill(rivals == 0, math.nan)
    return terms


def logit_scale(logits: Any, target: Any, partition: ClassPartition) -> dict[str, float]:
    """Mean logits by group of samples and of columns, in logits; ``nan`` for a group without samples.

    Returns:
        For samples of S and of U (``…_on_seen``, ``…_on_absent``): ``logit_ground_truth``;
        ``logit_{seen|absent}_mean`` (ground truth left out), ``…_max``, ``…_rival`` (largest but the ground
        truth) over the columns S and U; ``logit_gap``, the seen mean minus the absent mean.
    """
    terms = scale_terms(logits, target, partition)
    groups = label_groups(torch.as_tensor(target), partition).to(terms["ground_truth"].device)
    sums = {
        name: (
            torch.stack([terms[term][groups == code].sum() for term in terms]),
            int((groups == code).sum()),
        )
        for name, code in SAMPLE_GROUPS
    }
    return name_scales(list(terms), sums)


def name_scales(terms: list[str], sums: dict[str, tuple[Tensor, int]]) -> dict[str, float]:
    """Means under their public names, from each sample group's sums (one for each term) and its size."""
    result: dict[str, float] = {}
    for samples, (totals, count) in sums.items():
        means = {t: float(v) / count if count else math.nan for t, v in zip(terms, totals, strict=True)}
        result |= {f"logit_{term}_on_{samples}": value for term, value in means.items()}
        result[f"logit_gap_on_{samples}"] = means["seen_mean"] - means["absent_mean"]
    return result
