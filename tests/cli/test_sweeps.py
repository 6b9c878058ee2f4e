"""Sweeps: each launcher by a real run, failed jobs among the others, Optuna, and what it may look at."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ftc import InputError
from ftc.cli.sweeps import Sweep, add_row, job_row, read_rows
from ftc.results import RunRecord
from tests.commands import run_fresh, run_module
from tests.runs.test_train import wandb_records

TINY = (
    "source.max_epochs=1",
    "trainer.max_epochs=1",
    "data.iterations_per_epoch=2",
    "source.iterations_per_epoch=2",
    "calibration.use=[alg]",
    "data.gallery_every=null",
)
# Two jobs that end well, and two that do not.
HALF_WRONG = ("-m", "seed=0,1", "optimizer.name=sgd,nonsense", *TINY)
LOST = "no result: its process was lost or is still running; run the same command again"
ROOT = Path(__file__).parents[2]


def sweep_folder(home: Path) -> Path:
    (folder,) = (home / "outputs" / "sweeps").iterdir()
    return folder


def assert_half_wrong(home: Path, result: subprocess.CompletedProcess) -> list[dict[str, str]]:
    """Both good jobs finished with one source model; both others are named, in a line and in the table."""
    folder = sweep_folder(home)
    assert result.returncode == 1, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("ftc: error: ")]
    assert [line.split("; ")[0][:80] for line in lines] == [
        f"ftc: error: job seed={seed} optimizer.name=nonsense: optimizer.name=nonsense: choose "[:80]
        for seed in (0, 1)
    ]
    assert "Traceback" not in result.stderr + result.stdout
    assert "ConfigStore" not in result.stderr
    rows = read_rows(folder / "sweep.csv")
    assert [(row["seed"], row["optimizer.name"], row["status"]) for row in rows] == [
        ("0", "sgd", "finished"),
        ("0", "nonsense", "failed"),
        ("1", "sgd", "finished"),
        ("1", "nonsense", "failed"),
    ]
    for row in (rows[0], rows[2]):
        assert (
            float(row["alg/acc_all"])
            == RunRecord.read(folder / row["run"]).stages.calibrated["alg"].metrics["acc_all"]
        )
    assert re.search(r"│ 1 +│ nonsense +│ failed +│ +– │.*choose from", result.stdout)
    assert re.search(r"│ 1 +│ sgd +│ finished │ +\d+\.\d │", result.stdout)
    assert len(list((home / "outputs" / "cache" / "source").glob("*.safetensors"))) == 1
    return rows


# Launchers


@pytest.mark.slow
def test_joblib_shares_a_source_model_among_jobs_at_once(tmp_path):
    assert_half_wrong(
        tmp_path, run_fresh("train", tmp_path, *HALF_WRONG, "logger=csv", "hydra/launcher=joblib")
    )


@pytest.mark.slow
def test_submitit_local_and_the_same_command_again(tmp_path):
    command = (*HALF_WRONG, "hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2")
    rows = assert_half_wrong(tmp_path, run_fresh("train", tmp_path, *command))
    for row in rows[::2]:
        (file,) = (sweep_folder(tmp_path) / row["run"]).glob("wandb/offline-run-*/*.wandb")
        (started,) = (r.run for r in wandb_records(file) if r.WhichOneof("record_type") == "run")
        assert (started.display_name, started.run_group) == (row["run"], sweep_folder(tmp_path).name)
    results = [sweep_folder(tmp_path) / row["run"] / "results.json" for row in rows[::2]]
    before = [path.stat().st_mtime_ns for path in results]
    assert_half_wrong(tmp_path, run_fresh("train", tmp_path, *command))
    assert [path.stat().st_mtime_ns for path in results] == before
    logs = [path.read_text() for path in sweep_folder(tmp_path).glob(".submitit/*/*_log.out")]
    assert sum("Finished before; nothing was computed" in log for log in logs) == 2
    # Another launcher, the same sweep.
    shown = run_fresh("train", tmp_path, *HALF_WRONG)
    assert shown.stdout.count("Finished before; nothing was computed") == 2
    assert_half_wrong(tmp_path, shown)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is None, reason="pip install 'ftc[ray]'"
)
def test_ray_on_a_cluster_of_its_own(tmp_path):
    assert_half_wrong(tmp_path, run_fresh("train", tmp_path, *HALF_WRONG, "logger=csv", "hydra/launcher=ray"))


@pytest.mark.slow
def test_processes_started_together_do_one_job_after_the_other(tmp_path):
    """Two ranks go through the sweep in step; each job is theirs together."""
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m"]
    overrides = ("-m", "seed=0,1", "optimizer.name=sgd,nonsense", *TINY, "logger=csv", "trainer=ddp_cpu")
    env = {**os.environ, "HOME": str(tmp_path)}
    result = subprocess.run(
        [*line, "ftc.train", *overrides], cwd=tmp_path, env=env, text=True, capture_output=True
    )
    folder = sweep_folder(tmp_path)
    rows = read_rows(folder / "sweep.csv")
    assert [row["status"] for row in rows] == ["finished", "failed", "finished", "failed"], result.stderr
    assert result.returncode != 0
    assert result.stdout.count("Sweep folder: ") == 1
    assert result.stdout.count("Run folder: ") == 2
    assert RunRecord.read(folder / rows[0]["run"]).num_samples == {"seen": 500, "absent": 500, "others": 0}


@pytest.mark.slow
def test_a_killed_process_is_named_and_the_others_finish(tmp_path):
    killer = "data.readers.test._target_=ftc.benchmarks.digits.mnist,tests.runs.test_failures.deadly"
    command = ("-m", killer, *TINY, "logger=csv", "hydra/launcher=submitit_local")
    result = run_fresh("train", tmp_path, *command, PYTHONPATH=str(ROOT))
    assert result.returncode == 1
    folder = sweep_folder(tmp_path)
    assert [row["status"] for row in read_rows(folder / "sweep.csv")] == ["finished", "waiting"]
    lost, launcher = (line for line in result.stderr.splitlines() if line.startswith("ftc: error: "))
    assert lost == f"ftc: error: job data.readers.test._target_=tests.runs.test_failures.deadly: {LOST}"
    assert launcher.startswith("ftc: error: launcher: ")
    assert launcher.endswith(f"({folder.relative_to(tmp_path)}/launcher.error.txt)")
    assert (folder / "launcher.error.txt").read_text().startswith("Traceback")
    assert "Traceback" not in result.stderr


# A cluster that is none: sbatch runs the script's tasks at once, scontrol has them run again.
FAKE_SLURM = {
    "sbatch": """
        cp "$1" $FAKE_SLURM/batch.sh
        (for task in 0 1; do
            export SLURM_JOB_ID=$((7 + task)) SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_PROCID=0
            export SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NAME=ftc
            export SLURM_NTASKS_PER_NODE=1
            until bash "$1"; [ ! -e $FAKE_SLURM/again_7_$task ]; do rm $FAKE_SLURM/again_7_$task; done
        done) > $FAKE_SLURM/log 2>&1 &
        echo Submitted batch job 7
    """,
    "srun": """
        while [[ $1 == -* ]]; do case $1 in --output|--error) shift 2;; *) shift;; esac; done
        echo $$ > $FAKE_SLURM/pid_$SLURM_ARRAY_TASK_ID
        exec "$@"
    """,
    "scontrol": 'echo "$@" >> $FAKE_SLURM/calls; touch $FAKE_SLURM/again_$2',
    "sacct": "echo 'JobID|State|NodeList'; echo '7_0|RUNNING|here'; echo '7_1|RUNNING|here'",
}


@pytest.mark.slow
def test_slurm_gets_an_array_and_a_job_it_pre_empts_comes_back(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in FAKE_SLURM.items():
        (tools / name).write_text(f"#!/bin/bash\n{script.strip()}\n")
        (tools / name).chmod(0o755)
    env = {
        **{k: v for k, v in os.environ.items() if k not in {"WANDB_API_KEY", "WANDB_MODE", "NETRC"}},
        "HOME": str(tmp_path),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "FAKE_SLURM": str(tools),
    }
    settings = ("partition=short", "account=vision", "timeout_min=90", "gpus_per_node=2")
    line = [sys.executable, "-m", "ftc.train", "-m", "seed=0,1", *TINY, "logger=csv"]
    line += ["hydra/launcher=submitit_slurm", *(f"hydra.launcher.{setting}" for setting in settings)]
    process = subprocess.Popen(
        line, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    # The first job has begun to train: SLURM wants its machine back.
    until = time.monotonic() + 120
    while not list(tmp_path.glob("outputs/sweeps/*/*/config.yaml")) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(int((tools / "pid_0").read_text()), signal.SIGUSR2)
    out, err = process.communicate(timeout=300)
    log = "".join(path.read_text() for path in tmp_path.glob("outputs/sweeps/*/.submitit/**/*.out"))
    assert process.returncode == 0, f"{err}\n{(tools / 'log').read_text()}\n{log}"
    assert (tools / "calls").read_text() == "requeue 7_0\n"
    assert [row["status"] for row in read_rows(sweep_folder(tmp_path) / "sweep.csv")] == ["finished"] * 2
    assert out.count("│ finished │") == 2

    script = (tools / "batch.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, flags=re.MULTILINE))
    assert {
        "array": "0-1%2",
        "account": "vision",
        "cpus-per-task": "8",
        "gpus-per-node": "2",
        "job-name": "ftc",
        "mem": "32GB",
        "nodes": "1",
        "ntasks-per-node": "1",
        "open-mode": "append",
        "partition": "short",
        "requeue": "",
        "signal": "USR2@120",
        "time": "90",
    }.items() <= options.items(), script
    assert re.search(
        rf"^srun .* {re.escape(sys.executable)} -u -m submitit.core._submit ", script, re.MULTILINE
    )


# Before anything starts


# Sweep configurations


# The table


def test_the_table_knows_jobs_that_never_came_back(tmp_path, capsys):
    jobs = {f"run-{seed}": [f"seed={seed}", "optimizer.lr=0.1"] for seed in range(5)}
    finished = {"run": "run-4", "status": "finished", "error": "", "seed": "4", "optimizer.lr": "0.1"}
    add_row(tmp_path / "sweep.csv", finished)
    sweep = Sweep(tmp_path, jobs)
    sweep.begin()
    with job_row(tmp_path, "run-1", jobs["run-1"]) as row:
        row["alg/acc_all"] = 0.5
    with job_row(tmp_path, "run-2", jobs["run-2"]):
        raise InputError("optimizer.lr=0.1: too large")
    with job_row(tmp_path, "run-3", jobs["run-3"]):
        raise KeyError("a bug")
    assert not sweep.report()
    rows = read_rows(tmp_path / "sweep.csv")
    assert [(row["run"], row["status"]) for row in rows] == [
        ("run-0", "waiting"),
        ("run-1", "finished"),
        ("run-2", "failed"),
        ("run-3", "failed"),
        ("run-4", "finished"),
    ]
    out, err = capsys.readouterr()
    assert "│ 1    │ finished │ 50.0 │" in out
    trace = tmp_path / "run-3.error.txt"
    assert err.splitlines() == [
        f"ftc: error: job seed=0: {LOST}",
        "ftc: error: job seed=2: optimizer.lr=0.1: too large",
        f"ftc: error: job seed=3: KeyError: 'a bug' ({trace})",
    ]
    assert "raise KeyError" in trace.read_text()
    # The next try goes well.
    with job_row(tmp_path, "run-3", jobs["run-3"]):
        pass
    assert not trace.exists()
    with pytest.raises(SystemExit), job_row(tmp_path, "run-0", jobs["run-0"]):
        raise SystemExit(-1)
    assert [row["status"] for row in read_rows(tmp_path / "sweep.csv")] == [
        *("interrupted", "finished", "failed", "finished", "finished")
    ]


def test_rows_written_at_once_are_all_there(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: add_row(tmp_path / "t.csv", {"run": str(i), f"x{i}": i}), range(64)))
    with (tmp_path / "t.csv").open() as file:
        assert {row["run"]: row[f"x{row['run']}"] for row in csv.DictReader(file)} == {
            str(i): str(i) for i in range(64)
        }


# Optuna


# What it may look at


def test_jobs_that_refer_to_another_key_find_their_own_rows(tmp_path):
    arguments = ("-m", "seed=0,1", "source.seed=${seed}", "optimizer.name=nonsense", "hydra.sweep.dir=sweep")
    result = run_module("train", tmp_path, *arguments, *TINY, "logger=csv")
    assert result.returncode == 1
    assert LOST not in result.stderr
    assert [row["status"] for row in read_rows(tmp_path / "sweep" / "sweep.csv")] == ["failed", "failed"]
