"""Checks of logits and labels where they enter, and the groups of labels."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftc.errors import InputError
from ftc.partition import ClassPartition, Group

OTHERS, SEEN, ABSENT = 0, 1, 2


GROUP_CODES = {"seen": SEEN, "absent": ABSENT, "others": OTHERS}


@lru_cache(maxsize=256)
def columns(partition: ClassPartition, group: Group, device: torch.device) -> Tensor:
    """Column ids of a group, int64, on a device."""
    return torch.tensor(partition.columns(group), dtype=torch.int64, device=device)


@lru_cache(maxsize=64)
def _group_table(partition: ClassPartition, device: torch.device) -> Tensor:
    table = torch.full((partition.num_classes,), OTHERS, dtype=torch.int8)
    table[list(partition.seen)] = SEEN
    table[list(partition.absent)] = ABSENT
    return table.to(device)


def label_groups(target: Tensor, partition: ClassPartition) -> Tensor:
    """Group of every label: `OTHERS`, `SEEN` or `ABSENT`; int8 (N,)."""
    return _group_table(partition, target.device)[target.long()]


def as_logits(logits: Any, partition: ClassPartition) -> Tensor:
    """Logits as a floating tensor (N, C), at least float32. Their values are not checked.

    Raises:
        InputError: not two-dimensional, the wrong width, no rows, or no floating-point numbers.
    """
    logits = as_tensor(logits)
    if logits.ndim != 2 or logits.shape[1] != partition.num_classes:
        raise InputError(
            f"logits have shape {tuple(logits.shape)}; the partition asks for (N, {partition.num_classes})"
        )
    if logits.shape[0] == 0:
        raise InputError("logits are empty; give at least one sample")
    if not logits.is_floating_point():
        raise InputError(f"logits have dtype {logits.dtype}; give floating-point logits, not predictions")
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def as_tensor(values: Any) -> Tensor:
    """A tensor of anything array-like, on whatever device it is.

    Arrays in another byte order are converted; numbers longer than float64 become float64.

    Raises:
        InputError: not an array of numbers of a type that torch has.
    """
    if isinstance(values, np.ndarray):
        values = _for_torch(values)
    try:
        return torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = getattr(values, "dtype", type(values).__name__)
        raise InputError(f"values of type {kind} are no numbers that torch has; give numbers") from error


def _for_torch(values: np.ndarray) -> np.ndarray:
    """An array of numbers as torch takes it; a copy where torch cannot share its memory."""
    if values.dtype.kind not in "biufc":
        return values
    if values.dtype.type is np.longdouble:
        with np.errstate(over="ignore"):  # infinities are refused where they matter
            return values.astype(np.float64)
    if not values.dtype.isnative:
        return values.astype(values.dtype.newbyteorder("="))
    # torch warns of read-only memory, which arrays of other frameworks often have, and refuses some views.
    shared = values.flags.writeable and all(s >= 0 and s % values.itemsize == 0 for s in values.strides)
    return values if shared else values.copy()


def check_finite(logits: Tensor, totals: Tensor | None = None) -> None:
    """Refuse values that are not finite.

    Args:
        logits: (N, C).
        totals: their sums over columns (N,), where the caller has them.

    Raises:
        InputError: names the first offending row.
    """
    totals = logits.sum(1) if totals is None else totals
    # A sum is not finite where a value is not; it may also overflow, hence the second look.
    for row in (~torch.isfinite(totals)).nonzero()[:, 0].tolist():
        if not bool(torch.isfinite(logits[row]).all()):
            raise InputError(f"logits of row {row} are not finite; drop the row or mend what produced it")


def check_target(target: Any, logits: Tensor, partition: ClassPartition) -> Tensor:
    """Labels as int64 (N,) on the logits' device.

    Raises:
        InputError: the wrong shape, or a label outside the head.
    """
    target = as_tensor(target).to(logits.device)
    if target.shape != logits.shape[:1] or target.is_floating_point() or target.dtype == torch.bool:
        raise InputError(
            f"target has shape {tuple(target.shape)} and dtype {target.dtype}; "
            f"give one integer column id a sample, ({logits.shape[0]},)"
        )
    target = target.long()
    outside = (target < 0) | (target >= partition.num_classes)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise InputError(
            f"label {int(target[row])} of row {row} is outside the head of {partition.num_classes} columns; "
            "map labels to head columns first"
        )
    return target
