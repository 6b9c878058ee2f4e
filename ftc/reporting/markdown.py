"""Tables in Markdown, and the numbers in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns after the first hold numbers."""
    rule = "|---" + "|--:" * (len(header) - 1) + "|"
    return "\n".join([f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


def mean(values: Sequence[float]) -> str:
    """A mean with one digit behind the point."""
    return f"{fmean(values):.1f}".replace("-", "−")


def mean_difference(values: Sequence[float]) -> str:
    """A mean with its sign, and its standard error where there is more than one value."""
    error = f" ± {stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{fmean(values):+.1f}{error}".replace("-", "−")
