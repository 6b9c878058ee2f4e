"""Accuracies Acc_{A/B}, on samples with a label in A, with the argmax over the columns B."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ftc.errors import InputError
from ftc.functional.inputs import ABSENT, SEEN, label_groups
from ftc.functional.outcomes import Outcomes, reduce_logits
from ftc.partition import ClassPartition

Average = Literal["sample", "class"]
Criterion = Literal["acc_all", "harmonic", "balanced"]
CRITERIA: tuple[str, ...] = get_args(Criterion)


def class_weights(target: Tensor) -> Tensor:
    """Weights (N,), float64, that sum to 1, with the same total for every class present.

    >>> class_weights(torch.tensor([0, 0, 1]))
    tensor([0.2500, 0.2500, 0.5000], dtype=torch.float64)
    """
    _, inverse, counts = target.unique(return_inverse=True, return_counts=True)
    return 1.0 / (counts[inverse].double() * len(counts))


def mean_of(hits: Tensor, target: Tensor, average: Average) -> float:
    """Mean of hits (N,), a fraction; ``nan`` without samples."""
    if len(hits) == 0:
        return math.nan
    if average == "sample":
        return int(hits.sum()) / len(hits)
    return float((hits.double() * class_weights(target)).sum())


def criterion_scores(seen: Tensor, absent: Tensor, everything: Tensor) -> dict[str, Tensor]:
    """What each criterion makes of the accuracies at a γ (docs/definitions.md, "Criteria").

    Args:
        seen, absent: S/Y and U/Y, fractions, float64 of any one shape.
        everything: Y/Y, a fraction, which alone knows how many samples each group has.

    Returns:
        ``acc_all``, Y/Y; ``harmonic``, the harmonic mean of S/Y and U/Y, 0 where both are 0; ``balanced``,
        their plain mean. ``nan`` where a number that a criterion needs is ``nan``.
    """
    total = seen + absent
    harmonic = torch.where(total > 0, 2 * seen * absent / total, 0.0 * total)
    return {"acc_all": everything, "harmonic": harmonic, "balanced": total / 2}


def check_criterion(criterion: str, choices: Sequence[str] = CRITERIA) -> None:
    """Refuse an unknown criterion.

    Raises:
        InputError: it is none of the choices.
    """
    if criterion not in choices:
        raise InputError(f"criterion={criterion!r}: choose from {', '.join(choices)}")


def group_members(outcomes: Outcomes, partition: ClassPartition) -> dict[str, Tensor]:
    """Masks, bool (N,), of the samples that accuracies of ``all``, ``seen`` and ``absent`` run over."""
    groups = label_groups(outcomes.target, partition)
    return {
        "all": torch.ones_like(groups, dtype=torch.bool),
        "seen": groups == SEEN,
        "absent": groups == ABSENT,
    }


def hit_table(
    outcomes: Outcomes, partition: ClassPartition, gamma: float = 0.0
) -> Iterator[tuple[str, str, Tensor]]:
    """Yield name, group and hits of every accuracy at γ; hits are bool, one for each sample of the group."""
    members = group_members(outcomes, partition)
    correct = torch.where(members["absent"][:, None], gamma > outcomes.threshold, gamma <= outcomes.threshold)
    for column, k in enumerate(outcomes.top_k):
        suffix = "" if k == 1 else f"_top{k}"
        yield f"acc_all{suffix}", "all", correct[:, column]
        for group in ("seen", "absent"):
            yield f"acc_{group}{suffix}", group, correct[members[group], column]
            yield f"acc_{group}_within{suffix}", group, outcomes.within[members[group], column]


def accuracies(
    outcomes: Outcomes, partition: ClassPartition, gamma: float = 0.0, average: Average = "sample"
) -> dict[str, float]:
    """All accuracies at γ, fractions by name (docs/definitions.md, "Metrics").

    Args:
        outcomes: samples reduced by `reduce_logits`.
        partition: the partition that they were reduced with.
        gamma: γ in logits, added to every absent column.
        average: the mean over samples, or the mean over classes of per-class accuracy.

    Returns:
        ``acc_all`` Y/Y, ``acc_seen`` S/Y, ``acc_absent`` U/Y, ``acc_seen_within`` S/S, ``acc_absent_within``
        U/U, and ``harmonic`` and ``balanced`` of S/Y and U/Y; the accuracies once more with ``_top{k}`` for
        each further k.
        Samples labelled with an `others` column count in ``acc_all`` only. A group without samples gives
        ``nan``.
    """
    targets = {group: outcomes.target[rows] for group, rows in group_members(outcomes, partition).items()}
    result = {
        name: mean_of(hits, targets[group], average)
        for name, group, hits in hit_table(outcomes, partition, gamma)
    }
    rates = torch.tensor(
        [result[name] for name in ("acc_seen", "acc_absent", "acc_all")], dtype=torch.float64
    )
    return result | {name: float(score) for name, score in criterion_scores(*rates).items()}


def partition_accuracy(
    logits: Any,
    target: Any,
    partition: ClassPartition,
    gamma: float = 0.0,
    top_k: Sequence[int] = (1,),
    average: Average = "sample",
) -> dict[str, float]:
    """`accuracies` of logits (N, C) and labels (N,), tensors or arrays.

    >>> p = ClassPartition(num_classes=3, seen=[0, 1], absent=[2])
    >>> z = torch.tensor([[3.0, 0.0, 1.0], [2.0, 0.0, 1.0]])
    >>> partition_accuracy(z, [0, 2], p)["acc_absent"], partition_accuracy(z, [0, 2], p, gamma=1.5)["acc_all"]
    (0.0, 1.0)
    """
    return accuracies(reduce_logits(logits, target, partition, top_k), partition, gamma, average)
