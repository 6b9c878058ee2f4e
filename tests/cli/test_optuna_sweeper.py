"""Optuna chooses the next jobs by what the earlier ones returned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus

from ftc.cli.optuna_sweeper import OptunaSweeper
from ftc.cli.sweeps import read_rows
from ftc.results import OBJECTIVES, RunRecord
from tests.cli.test_sweeps import TINY, sweep_folder
from tests.commands import run_train


class FakeLauncher:
    """Returns −(x − 3)² − (k = b), or what it is told instead, and nothing where x > 8."""

    def __init__(self, constant: float | None) -> None:
        self.constant = constant
        self.batches: list[list[dict[str, str]]] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        assert initial_job_idx == sum(map(len, self.batches))
        jobs = [dict(override.split("=") for override in overrides) for overrides in job_overrides]
        self.batches.append(jobs)
        returns = []
        for job in jobs:
            x = float(job["x"])
            value = -((x - 3) ** 2) - (job["k"] == "b") if self.constant is None else self.constant
            returns.append(JobReturn(status=JobStatus.COMPLETED, _return_value=None if x > 8 else value))
        return returns


def searched(
    tmp_path: Path, *arguments: str, n_jobs: int = 1, constant: float | None = None
) -> list[list[dict[str, str]]]:
    sweeper = OptunaSweeper(
        30, n_jobs, 0, {"x": "interval(0.0,10)", "k": "choice(a,b)", "n": "int(interval(1,4))"}
    )
    launcher = sweeper.launcher = FakeLauncher(constant)
    sweeper.folder = tmp_path
    sweeper.sweep(["name=me", *arguments])
    return launcher.batches


def test_optuna_finds_the_maximum_and_asks_the_same_again(tmp_path):
    batches = searched(tmp_path)
    jobs = [job for batch in batches for job in batch]
    assert len(batches) == len(jobs) == 30
    assert any(float(job["x"]) > 8 for job in jobs)
    assert min(abs(float(job["x"]) - 3) for job in jobs[10:]) < 0.2
    assert {job["name"] for job in jobs} == {"me"}
    assert {job["n"] for job in jobs} <= {"1", "2", "3", "4"}
    assert searched(tmp_path) == batches
    # The first ten are drawn at random; those after them follow what came back.
    other = searched(tmp_path, constant=1.0)
    assert other[:10] == batches[:10]
    assert other[11:] != batches[11:]


def test_optuna_launches_batches_and_the_command_line_wins(tmp_path):
    batches = searched(tmp_path, "k=b", "x=choice(1,2)", n_jobs=4)
    assert [len(batch) for batch in batches] == [4] * 7 + [2]
    assert {job["k"] for batch in batches for job in batch} == {"b"}
    assert {job["x"] for batch in batches for job in batch} == {"1", "2"}


@pytest.mark.slow
def test_optuna_on_real_runs(tmp_path):
    command = ("sweep=optuna", *TINY, "calibration.use=[alg,pcv]", "calibration.calibrators.pcv.folds=1")
    command += ("logger=csv", "hydra.sweeper.n_trials=2")
    result = run_train(tmp_path, *command)
    assert result.returncode == 0, result.stderr
    rows = read_rows(sweep_folder(tmp_path) / "sweep.csv")
    assert len({row["optimizer.lr"] for row in rows}) == 2
    assert all(0 < float(row["selection/pseudo_ausuc"]) < 1 for row in rows)
    for row in rows:
        record = RunRecord.read(sweep_folder(tmp_path) / row["run"])
        # The bound of the run's criterion, and of no other.
        assert set(record.selection) == set(OBJECTIVES) - {"oracle_harmonic", "oracle_balanced"}
        assert record.selection["oracle_ausuc"] == record.stages.fine_tuned.metrics["ausuc"]
        assert record.selection["oracle_acc_all"] == record.stages.calibrated["oracle"].metrics["acc_all"]
    assert result.stdout.count("finished *") == 1
    again = run_train(tmp_path, *command)
    assert again.stdout.count("Finished before; nothing was computed") == 2
    assert read_rows(sweep_folder(tmp_path) / "sweep.csv") == rows
