"""The choice of images that are held out of training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ftc.data.groups import Groups
from ftc.errors import InputError


def hold_out(targets: Tensor, classes: Sequence[int], share: float, groups: Groups | None = None) -> Tensor:
    """Choose a share of every class's images, evenly spaced, to hold out of training.

    A group is held out whole or not at all, so that the number of images of a class is only as near to the
    share as its groups allow. At least one image of every class stays in training. The choice depends on
    nothing but the arguments.

    Args:
        targets: int64 (N,), labels.
        classes: the classes to choose from; images of others are never held out.
        share: share of each class, rounded up, below 1.
        groups: the group of every image; None where each is alone.

    Returns:
        bool (N,), True for images that are held out.

    Raises:
        InputError: a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise InputError(f"holdout={share}: give a share below 1, or 0 to hold nothing out")
    mask = torch.zeros(len(targets), dtype=torch.bool)
    if not share:
        return mask
    labels = targets.tolist()
    wanted_classes = set(classes)
    # A number instead of a name marks an image that is alone.
    keys: list[object] = [
        row if groups is None or groups[row] is None else groups[row] for row in range(len(labels))
    ]
    members: dict[object, list[int]] = {}
    by_class: dict[int, dict[object, int]] = {column: {} for column in classes}
    for row, (key, label) in enumerate(zip(keys, labels, strict=True)):
        if label in wanted_classes:
            members.setdefault(key, []).append(row)
            by_class[label][key] = by_class[label].get(key, 0) + 1
    total = {column: sum(sizes.values()) for column, sizes in by_class.items()}
    held = dict.fromkeys(classes, 0)
    chosen: set[object] = set()
    for column in classes:
        wanted = min(math.ceil(share * total[column]), total[column] - 1)
        passed = 0
        for key, size in by_class[column].items():
            passed += size
            if key in chosen or held[column] + size / 2 > wanted * passed / total[column]:
                continue
            taken = Counter(labels[row] for row in members[key])
            if all(held[label] + count < total[label] for label, count in taken.items()):
                chosen.add(key)
                mask[members[key]] = True
                for label, count in taken.items():
                    held[label] += count
    return mask
