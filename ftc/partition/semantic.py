"""Partitions by meaning: absent classes are near to the seen ones in the source model's features, or far."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from ftc.errors import InputError, require
from ftc.partition.class_partition import ClassPartition


def semantic_partition(
    kind: Literal["near", "far"],
    means: Tensor,
    candidates: Sequence[int],
    num_classes: int,
    num_seen: int,
    num_absent: int | None,
    seed: int,
) -> ClassPartition:
    """Divide classes along or across the clusters of their means.

    Classes are clustered into a tree (cosine distance, average linkage). Its leaves are laid out in a row, so
    that every cluster, at whatever height of the tree, is a run of neighbours. ``far`` cuts the row in two:
    at any height at most one cluster has classes on both sides. ``near`` deals the row out evenly: every
    cluster has its share of both sides. The seed turns the tree's branches around and draws the classes that
    take part where not all of them are asked for.

    Do not use features of the target domain's absent classes: no method and no calibrator may see those.

    Args:
        kind: ``near`` or ``far``, where the absent classes lie.
        means: class means (C, D) of the source model's features over the source domain; only the
            candidates' rows are looked at, and only their directions count.
        candidates: head columns to choose from.
        num_classes: width C of the head.
        num_seen: number of seen classes.
        num_absent: number of absent classes; None makes every candidate that is not seen absent.
        seed: seed of the draw.

    Raises:
        InputError: scikit-learn is not installed, no such kind, more classes asked for than there are
            candidates, a candidate outside the head, or one without a mean.
    """
    if kind not in ("near", "far"):
        raise InputError(f"partition.kind={kind}: choose near or far")
    require("sklearn", "semantic", f"partition.kind={kind}")
    if means.ndim != 2 or len(means) != num_classes:
        raise InputError(f"class means have shape {tuple(means.shape)}; give a row for each of {num_classes}")
    # The draw also checks numbers and columns.
    drawn = ClassPartition.random(num_classes, num_seen, num_absent, seed, sorted(candidates))
    classes = sorted(drawn.seen + drawn.absent)
    directions = means[classes].double().cpu().numpy()
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    for column, norm in zip(classes, norms[:, 0], strict=True):
        if not 0 < norm < np.inf:
            raise InputError(
                f"partition.kind={kind}: class {column} has no mean of source features; give source images "
                "of it, or choose another partition"
            )
    generator = random.Random(f"{kind} {seed}")
    row = [classes[leaf] for leaf in _leaves(directions / norms, generator)]
    if kind == "far":
        seen = row[:num_seen]
    else:
        start = int(generator.random() * len(row))
        dealt = [(place * num_seen + start) // len(row) for place in range(len(row) + 1)]
        seen = [column for place, column in enumerate(row) if dealt[place + 1] > dealt[place]]
    return ClassPartition(num_classes, seen, set(row) - set(seen))


def _leaves(directions: np.ndarray, generator: random.Random) -> list[int]:
    """Rows of unit vectors (n, D) in the order of a cluster tree's leaves, its branches turned at random."""
    orders = [[leaf] for leaf in range(len(directions))]
    if len(orders) > 1:
        from sklearn.cluster import AgglomerativeClustering

        # Rounded, so that equal distances stay equal whatever the machine's last bits are.
        distances = np.clip(1 - directions @ directions.T, 0, 2).round(9)
        tree = AgglomerativeClustering(
            n_clusters=None, distance_threshold=0, metric="precomputed", linkage="average"
        ).fit(distances)
        for left, right in tree.children_:
            first, second = (left, right) if generator.random() < 0.5 else (right, left)
            orders.append(orders[first] + orders[second])
    return orders[-1]
