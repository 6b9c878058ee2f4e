"""Multiruns are checked before the first job starts, and sweeps are what they say."""

from __future__ import annotations

import gc
import os
import re

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ftc import InputError
from ftc.benchmarks.digits import mnist
from ftc.cli.launch import conf_dir
from ftc.cli.multirun import check_processes, expand
from ftc.config.check import check
from ftc.config.commands import TrainConfig
from ftc.finetune import Full, build_optimizer
from ftc.models import create_classifier
from tests.cli.test_sweeps import ROOT
from tests.commands import run_fresh, run_train
from tests.conftest import composed

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
    "sweep=lr_partition partition.num_seen=5,12": "partition.num_seen=12: num_seen=12 and num_absent=-2 do",
}


@pytest.mark.parametrize("command", REFUSED)
def test_wrong_sweeps_get_one_line_before_anything_starts(tmp_path, command):
    result = run_train(tmp_path, *command.split())
    assert result.returncode == 2
    assert result.stderr.startswith(f"ftc: error: {REFUSED[command]}")
    assert result.stderr.count("\n") == 1
    # The folder is also the home, where matplotlib, which torchmetrics imports, makes a folder of its own.
    assert {path.name for path in tmp_path.iterdir()} <= {".config", ".cache"}


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
        result = run_fresh("train", tmp_path, "-m", "seed=0,1", override, PYTHONPATH=path)
        group = override.replace("sweep=", "hydra/sweeper=")
        assert result.stderr.startswith(f"ftc: error: {group}: needs ")
        assert result.stderr.endswith(f", which is not installed; pip install 'ftc[{extra}]'\n")
        assert result.stderr.count("\n") == 1
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
                check_processes(trainer, launcher)
    check_processes(two, many)
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_processes(two, basic)
    with pytest.raises(InputError, match=r"^hydra/launcher: 2 processes were started together"):
        check_processes(two, slurm)


def jobs_of(*overrides: str) -> list[TrainConfig]:
    """The checked jobs of a sweep."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        whole = compose("train", overrides=list(overrides), return_hydra_config=True)
        swept = [f"{key}={value}" for key, value in whole.hydra.sweeper.params.items()]
        return [
            check(compose("train", overrides=job), TrainConfig) for job in expand([*swept, *overrides], True)
        ]


def test_lr_partition_is_learning_rates_by_partitions():
    jobs = jobs_of("sweep=lr_partition", "experiment=digits_aggressive")
    assert {(job.optimizer.lr, job.partition.label()) for job in jobs} == {
        (lr, f"p{seed}") for lr in (1e-3, 3e-3, 1e-2) for seed in (0, 1, 2)
    }
    assert len(jobs) == len({job.run_name() for job in jobs}) == 9
    assert {job.name for job in jobs} == {"digits_aggressive"}


def test_optimizers_are_the_papers_six():
    jobs = jobs_of("sweep=optimizers", "optimizer.lr=1e-3")
    assert len(jobs) == len({job.run_name() for job in jobs}) == 12
    classifier = create_classifier("test_resnet", 10)
    built = {
        job.optimizer.name: build_optimizer(Full().parameter_groups(classifier), **job.optimizer.model_dump())
        for job in jobs
    }
    assert {name: type(optimizer).__name__ for name, optimizer in built.items()} == {
        "sgd": "SGD",
        "adam": "Adam",
        "adabelief": "AdaBelief",
        "adadelta": "Adadelta",
        "adagrad": "Adagrad",
        "rmsprop": "RMSprop",
    }


def test_what_a_job_returns_does_not_name_its_folder():
    plain, asked = (composed(TrainConfig, "train", f"objective={o}") for o in ("null", "oracle_ausuc"))
    assert (plain.objective, asked.objective) == (None, "oracle_ausuc")
    assert plain.run_name() == asked.run_name()


def frozen_mnist(split: str):
    """MNIST; it prints how many objects the garbage collector never looks at."""
    print(f"frozen: {gc.get_freeze_count()}")
    return mnist(split)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_job_leaves_nothing_for_good(tmp_path):
    reader = "data.readers.test._target_=tests.cli.test_multirun.frozen_mnist"
    short = ("source.max_epochs=1", "trainer.max_epochs=1", "data.iterations_per_epoch=1", "logger=csv")
    job = (*short, "source.iterations_per_epoch=1", "data.gallery_every=null", "calibration.use=[alg]")
    result = run_fresh("train", tmp_path, "-m", "seed=0,1,2", reader, *job, PYTHONPATH=str(ROOT))
    assert result.returncode == 0, result.stderr
    counts = [int(count) for count in re.findall(r"^frozen: (\d+)$", result.stdout, flags=re.MULTILINE)]
    assert len(counts) == 3
    # What imports made, and nothing of the jobs before.
    assert counts[0] > 100_000
    assert counts[0] >= counts[1] >= counts[2]
