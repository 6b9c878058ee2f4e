"""Run folders made of random logits, and Chromium, for the tests of the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file

from ftc import ClassPartition
from ftc.functional import partition_accuracy, predicted_columns, seen_absent_curve
from ftc.partition import PartitionManifest
from ftc.results import RunRecord, nullable
from ftc.runs.finished import FinishedRun
from tests.conftest import random_logits

CALIBRATION = {
    "use": [],
    "top_k": [1],
    "average": "sample",
    "per_class": 0,
    "probabilities": False,
    "bootstrap": {"replicates": 0, "confidence": 0.95, "seed": 0},
    "calibrators": {},
}
# Calibrators of `finished_run`: lane, γ, and whether it has weights of its own.
CALIBRATORS = {
    "alg": ("seen_only", 0.8, False),
    "interpolated": ("seen_only", 0.35, True),
    "prior_matched": ("unlabelled", 1.25, False),
    "prototypes": ("unlabelled", -0.4, True),
}


def finished_run(
    folder: Path,
    partition: ClassPartition,
    size: int = 200,
    seed: int = 0,
    average: str = "sample",
    names: Sequence[str] | None = None,
    keeps: bool = True,
    epochs: Sequence[dict[str, Any]] = (),
    without_absent: bool = False,
    method: str = "Full",
    checkpoint: bool = False,
) -> FinishedRun:
    """Write a run folder whose models have random logits, with a record that is computed from them.

    Args:
        folder: the folder to write.
        partition: seen, absent and other columns.
        size: the number of test images.
        seed: seed of the logits.
        average: what accuracies are means over.
        names: names of the classes.
        keeps: whether the run keeps its predictions and names of classes; those of ftc.calibrate do not.
        epochs: rows of ``epochs.parquet``.
        without_absent: whether no test image is of an absent class.
        method: the class of the method in the configuration.
        checkpoint: whether it is a run of ftc.evaluate.
    """
    folder.mkdir(parents=True)
    stages = ("source", "fine_tuned", *(name for name, (_, _, own) in CALIBRATORS.items() if own))
    saved: dict[str, torch.Tensor] = {}
    for number, stage in enumerate(stages):
        logits, drawn = random_logits(partition, size, seed + number)
        if not number:
            target = drawn
            if without_absent:
                target = torch.tensor(partition.seen)[torch.arange(size) % len(partition.seen)]
        logits[torch.arange(size), target] += 1.0 + 0.2 * number
        saved[f"{stage}/test/logits"] = logits
        saved[f"{stage}/test/target"] = target.clone()
        saved[f"{stage}/test/id"] = torch.arange(size)

    def row(stage: str, gamma: float, **fields: Any) -> dict[str, Any]:
        logits = saved[f"{stage}/test/logits"]
        curve = seen_absent_curve(logits, target, partition, average)
        metrics = partition_accuracy(logits, target, partition, gamma, average=average)
        return {"gamma": gamma, "uses": ("data",), **nullable({**metrics, "ausuc": curve.ausuc}), **fields}

    def model(stage: str) -> dict[str, Any]:
        curve = seen_absent_curve(saved[f"{stage}/test/logits"], target, partition, average)
        lists = {key: getattr(curve, key) for key in ("gamma", "acc_seen", "acc_absent", "acc_all")}
        drawn = {key: [None if v != v else v for v in values.tolist()] for key, values in lists.items()}
        return row(stage, 0.0, curve=drawn)

    calibrated = {
        name: row(name if own else "fine_tuned", gamma, title=name.replace("_", "-"), lane=lane)
        for name, (lane, gamma, own) in CALIBRATORS.items()
    }
    calibrated["alg"]["intervals"] = {"gamma": (0.5, 1.1), "acc_all": (0.1, 0.2)}
    curve = seen_absent_curve(saved["fine_tuned/test/logits"], target, partition, average)
    if not without_absent:
        calibrated["oracle"] = row("fine_tuned", curve.best(), title="oracle", lane="oracle")
    record = RunRecord(
        experiment="toy",
        seed=seed,
        method="full fine-tuning",
        partition=partition.record(),
        versions={"python": "3"},
        timing={"fine_tune": 1.0},
        num_samples=curve.num_samples,
        deployed="alg",
        checkpoint="a" * 64 if checkpoint else None,
        stages={"source": model("source"), "fine_tuned": model("fine_tuned"), "calibrated": calibrated},
    )
    record.write(folder)
    content = {
        "name": "toy",
        "seed": seed,
        "method": {"_target_": f"ftc.finetune.{method}"},
        "run_dir": str(folder),
        "calibration": {**CALIBRATION, "average": average},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    named = names or [f"class {column}" for column in range(partition.num_classes)]
    if checkpoint:
        saved = {key.replace("fine_tuned/", "checkpoint/"): tensor for key, tensor in saved.items()}
    if keeps:
        PartitionManifest.of(partition, named).write(folder / "partition.json")
        save_file(saved, folder / "predictions.safetensors")
    if epochs:
        pq.write_table(pa.Table.from_pylist(list(epochs)), folder / "epochs.parquet")
    return FinishedRun.read(folder)


def epoch_rows(count: int, absent: bool = True) -> list[dict[str, Any]]:
    """Rows of ``epochs.parquet``; without absent-class data they have no U/Y."""
    rows = []
    for number in range(-1, count - 1):
        points = np.linspace(0, 1, 40)
        row = {
            "epoch": float(number),
            "acc_all": 0.5,
            "acc_seen": 0.6 + 0.01 * number,
            "logit_gap_on_seen": 1.0,
        }
        row |= {"alg/gamma": 0.5 + number, "alg/acc_all": 0.7, "alg/acc_seen": 0.8}
        row |= {"curve_acc_seen": (1 - points**2).tolist(), "curve_acc_absent": [float("nan")] * 40}
        if absent:
            row |= {"acc_absent": 0.25, "alg/acc_absent": 0.6, "curve_acc_absent": points.tolist()}
        rows.append(row)
    return rows


def flips(logits: torch.Tensor, partition: ClassPartition, gamma: float) -> int:
    """The number of images whose answer at γ is another than at 0."""
    before, after = predicted_columns(logits, partition, (0.0, gamma))
    return int((before != after).sum())


@contextmanager
def chromium(folder: Path) -> Iterator[Any]:
    """Headless Chromium with a profile of its own in a folder; the test is skipped where there is none."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs chromium and chromedriver on the path")
    selenium = pytest.importorskip("selenium.webdriver")
    options = selenium.ChromeOptions()
    options.binary_location = browser
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        yield found
    finally:
        found.quit()


def screen(browser: Any, width: int, scheme: str = "light") -> None:
    """Give the page a width in pixels, and a colour scheme."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
