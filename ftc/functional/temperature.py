"""Temperatures: one number by which all logits are divided, so that confidences fit and no argmax changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ftc.errors import InputError
from ftc.functional.gamma import check_seen
from ftc.functional.inputs import as_logits, check_finite, check_target
from ftc.functional.outcomes import blocks
from ftc.functional.probability import scaled
from ftc.partition import ClassPartition

# The least and the largest temperature. Held-out samples without an error would have T = 0.
BOUNDS = (0.01, 100.0)


def fit_temperature(logits: Any, target: Any, partition: ClassPartition, gamma: float = 0.0) -> float:
    """The temperature T of the least mean −ln p_y on held-out seen samples, p = softmax((z + γ·1_U) / T).

    The mean is convex in 1/T (Guo et al., ICML 2017, arXiv 1706.04599, section 4.2), so that there is one
    least value; it is looked for within `BOUNDS`. Nothing here knows how absent-class samples fare.

    Args:
        logits: (N, C), of samples that the model was not trained on.
        target: labels (N,), all of seen classes.
        partition: seen, absent and other columns.
        gamma: γ in logits.

    Raises:
        InputError: see `as_logits`, `check_finite` and `check_target`; a label that is not of a seen class.

    >>> p = ClassPartition(num_classes=3, seen=[0, 1], absent=[2])
    >>> z = [[9.0, 0.0, -999.0]] * 4  # sure, and wrong once in four times
    >>> round(fit_temperature(z, [0, 0, 0, 1], p), 3)  # 9 / ln 3
    8.192
    """
    z = as_logits(logits, partition)
    y = check_target(target, z, partition)
    check_finite(z)
    check_seen(y, partition)

    def slope(inverse: float) -> tuple[float, float]:
        # The derivative of the mean by 1/T is that of p over the logits minus the label's; its own is the
        # variance.
        first = second = 0.0
        for rows in blocks(z):
            shifted = scaled(z[rows], partition, gamma)
            p = (inverse * shifted).softmax(1)
            mean = (p * shifted).sum(1, keepdim=True)
            first += float((mean - shifted.gather(1, y[rows, None])).sum())
            second += float((p * (shifted - mean).square()).sum())
        return first / len(z), second / len(z)

    return 1 / _increasing_root(slope)


def matching_temperature(logits: Any, partition: ClassPartition, gamma: float, accuracy: float) -> float:
    """The temperature at which the mean confidence of unlabelled samples equals an accuracy, within `BOUNDS`.

    Confidence falls with every T, so that there is one such temperature.

    Args:
        logits: (N, C).
        partition: seen, absent and other columns.
        gamma: γ in logits.
        accuracy: the accuracy that is expected of the model at γ on these samples, a fraction, see
            `ftc.functional.mixture.expected_accuracy`.

    Raises:
        InputError: see `as_logits` and `check_finite`; an accuracy outside [0, 1].
    """
    if not 0 <= accuracy <= 1:
        raise InputError(f"accuracy={accuracy}: give a fraction between 0 and 1")
    z = as_logits(logits, partition)
    check_finite(z)

    def surplus(inverse: float) -> tuple[float, float]:
        value = slope = 0.0
        for rows in blocks(z):
            shifted = scaled(z[rows], partition, gamma)
            p = (inverse * shifted).softmax(1)
            confidence = p.amax(1)
            value += float(confidence.sum())
            slope += float((confidence * (shifted.amax(1) - (p * shifted).sum(1))).sum())
        return value / len(z) - accuracy, slope / len(z)

    return 1 / _increasing_root(surplus)


def _increasing_root(function: Callable[[float], tuple[float, float]], tolerance: float = 1e-12) -> float:
    """Where an increasing function of 1/T, given with its derivative, is zero.

    Newton's method inside a bracket that every step narrows; a step that would leave it halves it, in
    logarithms. Where there is no zero within `BOUNDS`, the bound that is nearer to one.
    """
    low, high = 1 / BOUNDS[1], 1 / BOUNDS[0]
    if function(low)[0] >= 0:
        return low
    if function(high)[0] <= 0:
        return high
    at = 1.0
    for _ in range(200):
        value, slope = function(at)
        low, high = (low, at) if value > 0 else (at, high)
        step = at - value / slope if slope > 0 else math.nan
        if abs(step - at) <= tolerance * at or high <= low * (1 + tolerance):
            return at
        at = step if low < step < high else math.sqrt(low * high)
    return at
