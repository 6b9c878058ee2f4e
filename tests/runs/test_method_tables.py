"""Tables of methods: means, pairs and names, recomputed by hand from records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftc import ClassPartition, InputError
from ftc.reporting.table import Grid
from ftc.results import RunRecord, StageRecord, StageRecords, versions
from ftc.runs.finished import FinishedRun
from ftc.runs.method_tables import method_tables

FULL = "full fine-tuning"


def stage(score: float, lane: str | None = None) -> StageRecord:
    values = {"acc_all": score, "harmonic": score / 2, "acc_seen": score, "ausuc": score}
    return StageRecord(
        gamma=0.0, uses=("x",), lane=lane, title="mine" if lane == "seen_only" else "", **values
    )


def run(method: str, seed: int, fine_tuned: float, calibrated: float | None, **more: Any) -> FinishedRun:
    """A run of `method` on partition `seed` with these Y/Y; its oracle has 0.1 more than the calibrator."""
    rows = {} if calibrated is None else {"mine": stage(calibrated, "seen_only")}
    rows["oracle"] = stage(0.1 + (calibrated or 0.0), "oracle")
    record = RunRecord(
        experiment="digits",
        title=f"digits p{seed}",
        method=method,
        trainable=1234,
        seed=0,
        partition=ClassPartition(2, [0], [1]).record(),
        versions=versions(),
        timing={"fine_tune": 3.0},
        num_samples={},
        deployed=None,
        stages=StageRecords(source=stage(0.5), fine_tuned=stage(fine_tuned), calibrated=rows),
    )
    config = {"name": "digits", "partition": {"seed": seed}, **more}
    return FinishedRun(Path(f"{method} {seed} {more}"), record, config)


def cells(table: Grid) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.markdown().splitlines()]
    return {row[0]: row[1:] for row in rows}


RUNS = [
    run(FULL, 0, 0.60, 0.70),
    run(FULL, 1, 0.70, 0.72),
    run("other", 0, 0.62, 0.75),
    run("other", 1, 0.70, 0.79),
]


def test_methods_come_best_first_with_means_and_paired_differences():
    models, calibrated, differences = method_tables(RUNS, [])
    assert (models.title, calibrated.title, differences.title) == (
        "digits: models at γ = 0, mean of 2 runs",
        "digits: Y/Y (H) by method and calibrator",
        f"digits: Y/Y minus that of {FULL}, paired, ± standard error",
    )
    assert list(cells(models))[2:] == ["other", FULL, "source model"]
    header, row = cells(models)["method"], cells(models)["other"]
    assert dict(zip(header, row, strict=True))["Y/Y"] == "66.0"
    assert row[:2] == ["1,234", "3"]
    assert cells(models)["source model"][2] == "50.0"
    assert cells(calibrated)["method"] == ["γ = 0", "mine", "oracle"]
    assert cells(calibrated)[FULL] == ["65.0 (32.5)", "71.0 (35.5)", "81.0 (40.5)"]
    # 2 and 0 points; 5 and 7 points.
    assert cells(differences) == {
        "method": ["γ = 0", "mine", "oracle"],
        "---": ["--:"] * 3,
        "other": ["+1.0 ± 1.0", "+6.0 ± 1.0", "+6.0 ± 1.0"],
    }


def test_pairs_are_of_the_same_partition_and_what_is_missing_is_a_dash():
    runs = [*RUNS[:2], run("other", 1, 0.71, None)]
    _, calibrated, differences = method_tables(runs, [])
    assert cells(calibrated)["other"] == ["71.0 (35.5)", "–", "10.0 (5.0)"]
    assert cells(differences)["other"] == ["+1.0", "–", "−72.0"]


def test_keys_in_which_runs_differ_become_part_of_the_name():
    runs = [*RUNS, run(FULL, 0, 0.1, 0.2, optimizer={"lr": 2}), run(FULL, 1, 0.1, 0.2, optimizer={"lr": 2})]
    models, *_ = method_tables(runs, ["name", "optimizer.lr"])
    assert list(cells(models))[2:-1] == ["other, lr=None", f"{FULL}, lr=None", f"{FULL}, lr=2"]
    with pytest.raises(InputError, match=r"are both of full fine-tuning on digits p0, seed 0; name the key"):
        list(method_tables(runs, ["name"]))
