"""Sweeps: each launcher by a real run, failed jobs among the others, Optuna, and what it may look at."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from ftc import ClassPartition, InputError
from ftc.calibrators import Fold, FoldEvidence
from ftc.cli.launch import _check_processes, _expand, conf_dir
from ftc.cli.optuna_sweeper import OptunaSweeper
from ftc.cli.sweeps import Sweep, add_row, job_row, read_rows
from ftc.config.check import check
from ftc.config.commands import TrainConfig
from ftc.evaluation.objectives import seen_only_scores
from ftc.finetune import build_optimizer
from ftc.functional import partition_accuracy, seen_absent_curve
from ftc.functional.statistics import keep_seen, seen_statistics
from ftc.models import create_classifier
from ftc.results import OBJECTIVES, RunRecord
from tests.conftest import composed, random_logits, readme_blocks, run_train
from tests.runs.test_train import wandb_records

TINY = (
    "source.max_epochs=1",
    "trainer.max_epochs=1",
    "data.iterations_per_epoch=2",
    "source.iterations_per_epoch=2",
    "calibration.use=[alg]",
    "data.gallery=false",
)
# Two jobs that end well, and two that do not.
HALF_WRONG = ("-m", "seed=0,1", "optimizer.name=sgd,nonsense", *TINY)
LOST = "no word from it, its process was lost or is at work; the same command does it again"
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
            == RunRecord.read(folder / row["run"]).calibrated["alg"].metrics["acc_all"]
        )
    assert re.search(r"│ 1 +│ nonsense +│ failed +│ +– │.*choose from", result.stdout)
    assert re.search(r"│ 1 +│ sgd +│ finished │ +\d+\.\d │", result.stdout)
    assert len(list((home / "outputs" / "source").glob("*.safetensors"))) == 1
    return rows


# Launchers


def test_joblib_shares_a_source_model_among_jobs_at_once(tmp_path):
    assert_half_wrong(tmp_path, run_train(tmp_path, *HALF_WRONG, "logger=csv", "hydra/launcher=joblib"))


@pytest.mark.slow
def test_submitit_local_and_the_same_command_again(tmp_path):
    command = (*HALF_WRONG, "hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2")
    rows = assert_half_wrong(tmp_path, run_train(tmp_path, *command))
    for row in rows[::2]:
        (file,) = (sweep_folder(tmp_path) / row["run"]).glob("wandb/offline-run-*/*.wandb")
        (started,) = (r.run for r in wandb_records(file) if r.WhichOneof("record_type") == "run")
        assert (started.display_name, started.run_group) == (row["run"], sweep_folder(tmp_path).name)
    results = [sweep_folder(tmp_path) / row["run"] / "results.json" for row in rows[::2]]
    before = [path.stat().st_mtime_ns for path in results]
    assert_half_wrong(tmp_path, run_train(tmp_path, *command))
    assert [path.stat().st_mtime_ns for path in results] == before
    logs = [path.read_text() for path in sweep_folder(tmp_path).glob(".submitit/*/*_log.out")]
    assert sum("Finished before; nothing was trained" in log for log in logs) == 2
    # Another launcher, the same sweep.
    shown = run_train(tmp_path, *HALF_WRONG)
    assert shown.stdout.count("Finished before; nothing was trained") == 2
    assert_half_wrong(tmp_path, shown)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is None, reason="pip install 'ftc[ray]'"
)
def test_ray_on_a_cluster_of_its_own(tmp_path):
    assert_half_wrong(tmp_path, run_train(tmp_path, *HALF_WRONG, "logger=csv", "hydra/launcher=ray"))


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
    result = run_train(tmp_path, *command, PYTHONPATH=str(ROOT))
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

REFUSED = {
    "-m trainer=ddp_cpu seed=0,1": "trainer.devices=2: a job would start its other processes with the whole",
    "-m trainer.devices=auto seed=0,1": "trainer.devices=auto: a job would start its other processes",
    "-m optimizer.lr=interval(0.1,1)": "optimizer.lr=interval(0.1,1): a grid has no intervals",
    "-m hydra/launcher=joblib hydra.launcher.n_job=3": "hydra.launcher.n_job=3: no such key; did you mean n_",
    "-m hydra/launcher=slurm seed=0,1": "hydra/launcher=slurm: no such choice; choose from basic, joblib",
    "sweep=optuna objective=acc_all": "objective=acc_all: choose from pseudo_ausuc, held_out_acc_seen_within",
    "sweep=optuna objective=alg/acc_absent": "objective=alg/acc_absent: choose from pseudo_ausuc",
    "sweep=optuna objective=null": "objective=null: name what Optuna maximises; choose from pseudo_ausuc",
    "sweep=optuna calibration.use=[alg]": "objective=pseudo_ausuc: wants the folds of pseudo cross-valid",
    "sweep=optuna data.readers.val=null": "objective=pseudo_ausuc: wants labelled seen images held out",
    "sweep=optuna optimizer.lr=interval(-1,1)": "optimizer.lr=-1.0: input should be greater than 0",
    "sweep=lr_split partition.num_seen=5,12": "partition.num_seen=12: num_seen=12 and num_absent=-2 do not",
}


@pytest.mark.parametrize("command", REFUSED)
def test_wrong_sweeps_get_one_line_before_anything_starts(tmp_path, command):
    result = run_train(tmp_path, *command.split())
    assert result.returncode == 2
    assert result.stderr.startswith(f"ftc: error: {REFUSED[command]}")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_launchers_that_are_not_installed_say_so(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if 'launcher' in name or name == 'optuna' else find(name, *a)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    for override, extra in (
        ("hydra/launcher=submitit_slurm", "sweeps"),
        ("hydra/launcher=ray", "ray"),
        ("sweep=optuna", "sweeps"),
    ):
        result = run_train(tmp_path, "-m", "seed=0,1", override, PYTHONPATH=path)
        group = override.replace("sweep=", "hydra/sweeper=")
        assert result.stderr == f"ftc: error: {group}: is not installed; pip install 'ftc[{extra}]'\n"
        assert result.returncode == 2


def test_processes_of_a_job_are_started_with_the_sweep(monkeypatch):
    two, one = (
        composed(TrainConfig, "train", f"trainer={t}", "trainer.devices=2").trainer for t in ("ddp", "cpu")
    )
    assert not two.is_single
    assert composed(TrainConfig, "train", "trainer=ddp", "trainer.devices=[1]").trainer.is_single
    assert not composed(TrainConfig, "train", "trainer.num_nodes=2").trainer.is_single
    basic, slurm, local, many = (
        OmegaConf.create(node)
        for node in (
            {"_target_": "hydra.BasicLauncher"},
            {"_target_": "x.SlurmLauncher", "tasks_per_node": 1},
            {"_target_": "x.LocalLauncher", "tasks_per_node": 2},
            {"_target_": "x.SlurmLauncher", "tasks_per_node": 2},
        )
    )
    for launcher in (basic, slurm, local):
        for trainer in (one, two):
            with pytest.raises(InputError, match=r"^trainer\.devices=2: a job would start"):
                _check_processes(trainer, launcher)
    _check_processes(two, many)
    monkeypatch.setenv("WORLD_SIZE", "2")
    _check_processes(two, basic)
    with pytest.raises(InputError, match=r"^hydra/launcher: 2 processes were started together"):
        _check_processes(two, slurm)


# Sweep configurations


def jobs_of(*overrides: str) -> list[TrainConfig]:
    """The checked jobs of a sweep."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        whole = compose("train", overrides=list(overrides), return_hydra_config=True)
        swept = [f"{key}={value}" for key, value in whole.hydra.sweeper.params.items()]
        return [
            check(compose("train", overrides=job), TrainConfig) for job in _expand([*swept, *overrides], True)
        ]


def test_lr_split_is_learning_rates_by_splits():
    jobs = jobs_of("sweep=lr_split", "experiment=digits_aggressive")
    assert {(job.optimizer.lr, job.partition.label()) for job in jobs} == {
        (lr, f"p{seed}") for lr in (1e-3, 3e-3, 1e-2) for seed in (0, 1, 2)
    }
    assert len(jobs) == len({job.run_name() for job in jobs}) == 9
    assert {job.name for job in jobs} == {"digits_aggressive"}


def test_optimizers_are_the_papers_six():
    jobs = jobs_of("sweep=optimizers", "optimizer.lr=1e-3")
    assert len(jobs) == len({job.run_name() for job in jobs}) == 12
    classifier = create_classifier("test_resnet", 10)
    built = {job.optimizer.name: build_optimizer(classifier, **job.optimizer.model_dump()) for job in jobs}
    assert {name: type(optimizer).__name__ for name, optimizer in built.items()} == {
        "sgd": "SGD",
        "adam": "Adam",
        "adabelief": "AdaBelief",
        "adadelta": "Adadelta",
        "adagrad": "Adagrad",
        "rmsprop": "RMSprop",
    }


def test_the_documented_commands_are_right():
    lines = "\n".join(readme_blocks("bash", "docs/scaling.md")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if "ftc.train" in line]
    sweeps = [c[c.index("ftc.train") + 1 :] for c in commands if "-m" in c[3:] or "sweep=" in " ".join(c)]
    assert len(sweeps) > 12
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for overrides in sweeps:
            given = [o for o in overrides if o != "-m"]
            plain = [o for o in given if not OverridesParser.create().parse_override(o).is_sweep_override()]
            whole = compose("train", overrides=plain, return_hydra_config=True)
            swept = [f"{key}={value}" for key, value in (whole.hydra.sweeper.params or {}).items()]
            tasks = [o for o in given if not o.startswith("hydra")]
            job = compose("train", overrides=next(_expand([*swept, *tasks], grid=False)))
            if "experiment=office_home" not in given:
                check(job, TrainConfig)


def test_what_a_job_returns_does_not_name_its_folder():
    plain, asked = (composed(TrainConfig, "train", f"objective={o}") for o in ("null", "oracle_ausuc"))
    assert (plain.objective, asked.objective) == (None, "oracle_ausuc")
    assert plain.run_name() == asked.run_name()


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
    command = ("sweep=optuna", *TINY, "calibration.use=[alg,pcv]", "calibration.methods.pcv.folds=1")
    command += ("logger=csv", "hydra.sweeper.n_trials=2")
    result = run_train(tmp_path, *command)
    assert result.returncode == 0, result.stderr
    rows = read_rows(sweep_folder(tmp_path) / "sweep.csv")
    assert len({row["optimizer.lr"] for row in rows}) == 2
    assert all(0 < float(row["selection/pseudo_ausuc"]) < 1 for row in rows)
    for row in rows:
        record = RunRecord.read(sweep_folder(tmp_path) / row["run"])
        assert set(record.selection) == set(OBJECTIVES)
        assert record.selection["oracle_ausuc"] == record.fine_tuned.metrics["ausuc"]
        assert record.selection["oracle_acc_all"] == record.calibrated["oracle"].metrics["acc_all"]
    assert result.stdout.count("finished *") == 1
    again = run_train(tmp_path, *command)
    assert again.stdout.count("Finished before; nothing was trained") == 2
    assert read_rows(sweep_folder(tmp_path) / "sweep.csv") == rows


# What it may look at

PARTITION = ClassPartition(9, seen=[0, 2, 4, 6], absent=[1, 5, 7])


def scores(target: torch.Tensor, logits: torch.Tensor) -> dict[str, float]:
    """As a run makes them, of held-out logits that serve every fold as well."""
    z, y = keep_seen(logits, target, PARTITION)
    folds = tuple(Fold.from_logits(z, z, y, PARTITION, fold) for fold in ([0, 2], [0, 6]))
    deployed = seen_statistics(z, y, PARTITION), 0.4
    return seen_only_scores(PARTITION, (logits, target), deployed, [FoldEvidence("folds", folds)])


def test_seen_only_objectives_equal_plain_computations():
    logits, target = random_logits(PARTITION, 300)
    found = scores(target, logits)
    assert set(found) == {name for name in OBJECTIVES if "oracle" not in name}
    z, y = keep_seen(logits, target, PARTITION)
    seen = torch.tensor(PARTITION.seen)
    assert found["held_out_acc_seen_within"] == pytest.approx(
        float((seen[z[:, seen].argmax(1)] == y).double().mean())
    )
    assert found["held_out_acc_seen"] == partition_accuracy(z, y, PARTITION, 0.4)["acc_seen"]
    z[:, list(PARTITION.absent)] = -100
    areas = [
        seen_absent_curve(z, y, ClassPartition(9, fold, [c for c in PARTITION.seen if c not in fold])).ausuc
        for fold in ([0, 2], [0, 6])
    ]
    assert found["pseudo_ausuc"] == pytest.approx(sum(areas) / 2)


def test_labels_and_samples_of_absent_classes_reach_no_seen_only_objective():
    logits, target = random_logits(PARTITION, 300)
    found = scores(target, logits)
    absent = torch.isin(target, torch.tensor(PARTITION.absent))
    shuffled = target.clone()
    shuffled[absent] = target[absent].roll(1)
    assert not torch.equal(shuffled, target)
    assert scores(shuffled, logits) == found
    assert scores(target[~absent], logits[~absent]) == found


def test_objectives_say_what_they_are():
    assert {name for name in OBJECTIVES if "oracle" in name} == {"oracle_ausuc", "oracle_acc_all"}
    assert seen_only_scores(PARTITION, None, None, []) == {}
