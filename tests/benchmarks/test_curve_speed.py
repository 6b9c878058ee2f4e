"""Exact curve against the step-by-step method, which recomputes the argmax for every γ: both in this run.

``make bench`` prints the table.
"""

from __future__ import annotations

import time

import pytest
import torch

from ftc import ClassPartition
from ftc.functional import seen_absent_curve


def step_by_step_area(logits: torch.Tensor, target: torch.Tensor, partition: ClassPartition) -> float:
    """AUSUC by one argmax over all columns for each distinct margin."""
    absent = torch.zeros(partition.num_classes, dtype=torch.bool)
    absent[list(partition.absent)] = True
    margins = logits[:, ~absent].amax(1) - logits[:, absent].amax(1)
    edges = margins.unique()
    gammas = torch.cat([edges[:1] - 1, (edges[:-1] + edges[1:]) / 2, edges[-1:] + 1])
    is_seen = torch.isin(target, torch.tensor(partition.seen))
    points = []
    for gamma in gammas:
        hits = (logits + gamma * absent).argmax(1) == target
        points.append((hits[is_seen].double().mean(), hits[~is_seen].double().mean()))
    seen, absent_acc = (torch.stack(values) for values in zip(*points, strict=True))
    return float(((seen[:-1] - seen[1:]) * (absent_acc[:-1] + absent_acc[1:]) / 2).sum())


@pytest.mark.slow
@pytest.mark.parametrize(("size", "classes"), [(1331, 65), (2000, 100)])
def test_curve_against_step_by_step(size, classes, capsys):
    generator = torch.Generator().manual_seed(0)
    partition = ClassPartition.random(classes, classes // 2, seed=0)
    target = torch.randint(0, classes, (size,), generator=generator)
    logits = torch.randn(size, classes, generator=generator, dtype=torch.float64)
    logits[torch.arange(size), target] += 3
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.perf_counter()
        expected = step_by_step_area(logits, target, partition)
        slow = time.perf_counter() - start
        seen_absent_curve(logits, target, partition)
        start = time.perf_counter()
        found = seen_absent_curve(logits, target, partition).ausuc
        fast = time.perf_counter() - start
    finally:
        torch.set_num_threads(threads)
    assert found == pytest.approx(expected, abs=1e-9)
    with capsys.disabled():
        print(f"\nN={size}, C={classes}: step by step {slow:.2f} s, ours {1e3 * fast:.1f} ms", end=", ")
        print(f"{slow / fast:,.0f}×")
