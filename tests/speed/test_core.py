"""Speed and memory against baselines in the same run; ``make bench`` prints the table."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import timm
import torch
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, TensorDataset

from ftc import CalibrationCallback, ClassPartition
from ftc.calibrators import AverageLogitGap, ExpectedAccuracy, SymmetricMisroute
from ftc.evaluation.summary import Measures
from ftc.functional import bootstrap_accuracies, reduce_logits, seen_absent_curve
from ftc.metrics import LogitScale, OutcomeStream, PoolStream, ProbabilityStream, SeenStream

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report() -> Iterator[Callable[[str, str, str, str], None]]:
    rows: list[tuple[str, str, str, str]] = []
    yield lambda *row: rows.append(row)
    table = Table(title=f"torch {torch.__version__}, one thread")
    for column in ("what", "ours", "baseline", "ratio (goal)"):
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def data(size: int, classes: int) -> tuple[torch.Tensor, torch.Tensor, ClassPartition]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, classes, (size,), generator=generator)
    logits = torch.randn(size, classes, generator=generator)
    logits[torch.arange(size), target] += 3
    return logits, target, ClassPartition.random(classes, classes // 2, seed=0)


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """The shortest of several runs, after one to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def step_by_step_area(logits: torch.Tensor, target: torch.Tensor, partition: ClassPartition) -> float:
    """AUSUC as one writes it down: for each step shift the absent columns, predict anew, compare."""
    seen, absent = list(partition.seen), list(partition.absent)
    is_seen = torch.isin(target, torch.tensor(seen))
    edges = (logits[:, seen].amax(1) - logits[:, absent].amax(1)).unique()
    points = []
    for gamma in torch.cat([edges[:1] - 1, (edges[:-1] + edges[1:]) / 2, edges[-1:] + 1]):
        shifted = logits.clone()
        shifted[:, absent] += gamma
        hits = shifted.argmax(1) == target
        points.append((hits[is_seen].double().mean(), hits[~is_seen].double().mean()))
    acc_seen, acc_absent = (torch.stack(values) for values in zip(*points, strict=True))
    return float(((acc_seen[:-1] - acc_seen[1:]) * (acc_absent[:-1] + acc_absent[1:]) / 2).sum())


@pytest.mark.parametrize(("size", "classes", "goal"), [(1331, 65, 1_000), (6000, 200, 10_000)])
def test_curve_against_step_by_step(size, classes, goal, report):
    logits, target, partition = data(size, classes)
    start = time.perf_counter()
    expected = step_by_step_area(logits, target, partition)
    slow = time.perf_counter() - start
    # In float32 the baseline's shifted logits round, and equal margins differ.
    assert seen_absent_curve(logits, target, partition).ausuc == pytest.approx(expected, abs=1e-4)
    fast = seconds(lambda: seen_absent_curve(logits, target, partition).ausuc, 100)
    name = f"curve and AUSUC, N={size:,}, C={classes}, against step by step"
    report(name, f"{1e3 * fast:.2f} ms", f"{slow:.1f} s", f"{slow / fast:,.0f}× (≥ {goal:,}×)")


def test_large_curve_against_one_max(report):
    logits, target, partition = data(50_000, 1_000)
    whole = seconds(lambda: seen_absent_curve(logits, target, partition).ausuc)
    one_max = seconds(lambda: logits.max(dim=1))
    ratio = f"{whole / one_max:.2f}× (≤ 3×)"
    report(
        "curve, N=50,000, C=1,000, against one logits.max(dim=1)",
        f"{1e3 * whole:.0f} ms",
        f"{1e3 * one_max:.0f} ms",
        ratio,
    )


def test_large_curve_extra_memory(report):
    code = """
import resource, torch
from ftc import ClassPartition
from ftc.functional import seen_absent_curve
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
torch.set_num_threads(1)
p = ClassPartition.random(1000, 500)
small = torch.randn(2000, 1000)
seen_absent_curve(small, torch.arange(2000) % 1000, p)
logits = torch.empty(50_000, 1_000).normal_()
target = torch.arange(50_000) % 1000
before = peak()
seen_absent_curve(logits, target, p)
print(peak() - before)
"""
    out = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    extra = float(out.stdout)
    report("extra memory of that curve", f"{extra:.0f} MiB", "200 MiB of logits", "(< 64 MiB)")
    assert extra < 64


def test_growth_is_n_log_n(report):
    sizes = [10**3, 10**4, 10**5, 10**6]
    times = []
    for size in sizes:
        logits, target, partition = data(size, 65)
        times.append(seconds(lambda z=logits, y=target, p=partition: seen_absent_curve(z, y, p).ausuc, 3))
    work = [n * math.log2(n) for n in sizes]
    per_unit = [1e9 * t / w for t, w in zip(times, work, strict=True)]
    slope = np.polyfit(np.log(work), np.log(times), 1)[0]
    cells = ", ".join(f"{1e3 * t:.1f}" for t in times)
    report(
        "curve, C=65, N=10³, 10⁴, 10⁵, 10⁶",
        f"{cells} ms",
        ", ".join(f"{u:.1f}" for u in per_unit) + " ns / (N log₂ N)",
        f"time ~ (N log N)^{slope:.2f} (1)",
    )


@pytest.fixture(scope="module")
def resnet() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet50", num_classes=1000).eval()


def test_streaming_update_against_forward(resnet, report):
    partition = ClassPartition.random(1000, 500)
    images, target = torch.randn(16, 3, 224, 224), torch.randint(0, 1000, (16,))
    with torch.inference_mode():
        logits = resnet(images)
        forward = seconds(lambda: resnet(images), 2)
    metrics = {
        "curve": OutcomeStream(partition),
        "curve and top-5": OutcomeStream(partition, top_k=(1, 5)),
        "logit scales": LogitScale(partition),
        "probabilities": ProbabilityStream(partition),
        "calibration": SeenStream(partition),
    }
    for name, metric in metrics.items():
        update = seconds(lambda metric=metric: metric.update(logits, target), 20)
        report(
            f"update, batch of 16, C=1,000: {name}, against ResNet-50 forward",
            f"{1e3 * update:.2f} ms",
            f"{1e3 * forward:.0f} ms",
            f"{update / forward:.2%} (≤ 2 %)",
        )
    pool = PoolStream(partition)
    update = seconds(lambda: pool.update(logits), 20)
    report(
        "update, batch of 16: unlabelled pool",
        f"{1e3 * update:.2f} ms",
        f"{1e3 * forward:.0f} ms",
        f"{update / forward:.2%} (≤ 2 %)",
    )


class Timed(CalibrationCallback):
    """Adds up the time spent in its own hooks."""

    spent = 0.0

    def on_validation_batch_end(self, *args, **kwargs):
        start = time.perf_counter()
        super().on_validation_batch_end(*args, **kwargs)
        self.spent += time.perf_counter() - start

    def on_validation_epoch_end(self, *args, **kwargs):
        start = time.perf_counter()
        super().on_validation_epoch_end(*args, **kwargs)
        self.spent += time.perf_counter() - start


class Evaluated(LightningModule):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return {"logits": self.model(batch[0]), "target": batch[1]}


def test_callback_against_validation_epoch(resnet, report):
    partition = ClassPartition.random(1000, 500)
    images, target = torch.randn(96, 3, 224, 224), torch.arange(0, 960, 10)
    loader = DataLoader(TensorDataset(images, target), 16)
    methods = {
        "alg": AverageLogitGap(),
        "symmetric": SymmetricMisroute(),
        "expected_accuracy": ExpectedAccuracy(),
    }
    callback = Timed(partition, methods, loaders=("calibration", "val"), measures=Measures((1, 5)))
    trainer = Trainer(
        callbacks=[callback], logger=False, enable_progress_bar=False, accelerator="cpu", barebones=False
    )
    start = time.perf_counter()
    trainer.validate(Evaluated(resnet), [loader, loader], verbose=False)
    epoch = time.perf_counter() - start
    share = callback.spent / epoch
    report(
        "callback, validation of 2 × 96 images with ResNet-50, C=1,000",
        f"{1e3 * callback.spent:.0f} ms",
        f"{epoch:.1f} s",
        f"{share:.1%} (≤ 3 %)",
    )


def test_bootstrap(report):
    logits, target, partition = data(10_000, 100)
    outcomes = reduce_logits(logits, target, partition)
    start = time.perf_counter()
    bootstrap_accuracies(outcomes, partition, replicates=1000)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    for seed in range(20):
        rows = torch.randint(10_000, (10_000,), generator=torch.Generator().manual_seed(seed))
        assert seen_absent_curve(logits[rows], target[rows], partition).ausuc > 0
    loop = 50 * (time.perf_counter() - start)
    report(
        "1,000 bootstrap replicates of AUSUC and all accuracies, N=10,000",
        f"{ours:.1f} s",
        f"{loop:.1f} s (20 curves anew, × 50)",
        f"{loop / ours:.0f}× (< 5 s)",
    )
