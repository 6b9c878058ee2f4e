"""Wrong input on the real command line: one line, exit status 2, no folder, before torch is imported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ftc
from ftc import InputError
from ftc.cli.front import COMMANDS
from ftc.cli.launch import conf_dir
from ftc.config.commands import TrainConfig
from ftc.runs.train import train
from tests.commands import run_module
from tests.conftest import composed

EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
WRONG = {
    "optimzer.lr=1": "optimzer.lr=1: no such key; did you mean optimizer? choose from allow_targets, c",
    "optimizer.lrr=1": "optimizer.lrr=1: no such key; did you mean lr? choose from backbone_lr_scale,",
    "partition.seen=[0,99]": "partition.seen=[0, 99]: column 99 is outside the head; choose from 0 to 9",
    "trainer.max_epochs=-3": "trainer.max_epochs=-3: input should be greater than or equal to 1",
    "calibration.use=[foo]": "calibration.use=['foo']: no calibrator 'foo'; choose from alg, anchored,",
    "calibration.default=oracle": "calibration.default=oracle: not among calibration.use; choose from inter",
    "calibration.use=[]": "calibration.use=[]: name at least one calibrator",
    "calibration.bootstrap.replicates=1": "calibration.bootstrap.replicates=1: give 0 for no intervals",
    "data.holdout=0.5": "data.holdout=0.5: goes with data.readers.val=null",
    "optimizer.kwargs.x=1": "optimizer.kwargs.x=1: no such key; add it with a leading +",
    "logger=foo": "logger=foo: no such choice; choose from csv, mlflow, tensorboard, w",
    "experiment=foo": f"experiment=foo: no such choice; choose from {', '.join(EXPERIMENTS)}\n",
    "experiment=office_home": "data/office_home: no such folder; get it with: python -m ftc.prepare office_h",
    "experiment=vtab": "data.task: missing; give it a value",
    "experiment=folder": "data.root: missing; give it a value",
    "partition=foo": "partition=foo: no such choice; choose from data, far, file, near, paper, random",
    "partition=paper": "partition.published: refers to data.published, which the configuration lacks",
    "data.columns=names.txt": "data.columns=names.txt: no such file; give null, imagenet-1k, model or a file",
    "source.checkpoint=a.pth": "source.checkpoint=a.pth: no such file",
    "seed=x": "seed=x: input should be a valid integer",
    "partition.seen=[1.5]": "partition.seen[0]=1.5: input should be a valid integer",
    "partition.num_seen=11": "partition.num_seen=11: num_seen=11 and num_absent=-1 do not fit a head of 10",
    "partition.absent=[1]": "partition.absent=[1]: goes with partition.seen",
    "trainer.precision=8": "trainer.precision=8: input should be '32-true', 'bf16-mixed' or '16-mixed'",
    "data.readers.source=null": "data.readers.source=null: without source images",
    "data.readers.train=null": "data.readers.train=None: input should be a valid dictionary",
    "name=a/b": "name=a/b: string should match pattern",
    "+foo=1": "foo=1: no such key",
    "~seed": "seed: missing; give it a value",
    "optimizer.lr=[": "optimizer.lr=[: input should be a valid number",
}


@pytest.mark.parametrize("override", WRONG)
def test_wrong_input_gets_one_line(command, tmp_path, override):
    result = command(override)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"ftc: error: {WRONG[override]}")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["-m", "optimizer.lr=1e-3,-1"], "optimizer.lr=-1: input should be greater than 0"),
        (["-m", "partition.seed=0,1", "partition.num_seen=5,12"], "partition.num_seen=12: num_seen=12"),
        (["-m", "seed=0,1", "optimzer.lr=1,2"], "optimzer.lr=1"),
        (["-m", "seed=0,1", "run_dir=here"], "run_dir=here: a sweep's jobs need a folder each"),
        (
            ["experiment=office_home", "data.source=Xx"],
            "data.source=Xx: no such choice; choose from Ar, Cl, Pr",
        ),
        (
            ["experiment=office_home", "data.target=Ar"],
            "data.target=Ar: is the source domain; choose another",
        ),
        (
            ["experiment=vtab", "data.task=foo"],
            "data.task=foo: no such choice; choose from caltech101, cifar1",
        ),
        (
            ["experiment=vtab", "data.task=dtd"],
            "data/vtab/dtd: no such folder; get it with: python -m ftc.pre",
        ),
        (
            ["sweep=office_home"],
            "data/office_home: no such folder; get it with: python -m ftc.prepare office_",
        ),
    ],
)
def test_several_values_are_checked_before_anything_runs(command, tmp_path, overrides, message):
    result = command(*overrides)
    assert result.returncode == 2
    assert result.stderr.startswith(f"ftc: error: {message}")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_groups(command, tmp_path):
    result = command("--help")
    assert result.returncode == 0
    assert "experiment: digits" in result.stdout
    assert "python -m ftc.train -m partition.seed=0,1,2" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_has_ftcs_version(tmp_path, module):
    result = run_module(module, tmp_path, "--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"ftc {ftc.__version__}\n", "")


def test_hydras_own_folder_is_refused_with_a_hint(tmp_path):
    for module, mend in (("train", "set run_dir=there"), ("compare", "leave it out")):
        arguments = ("hydra.run.dir=there", *(["runs=."] if module == "compare" else []))
        result = run_module(module, tmp_path, *arguments)
        assert result.returncode == 2
        assert result.stderr == f"ftc: error: hydra.run.dir=there: has no effect here; {mend}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argument", ["--help", "seed=x", "partition.seen=[0,99]", "--cfg=job"])
def test_answers_come_without_torch(tmp_path, argument):
    code = (
        "import sys, runpy; sys.argv = ['ftc.train', *sys.argv[1:]]\n"
        "try: runpy.run_module('ftc.train', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    line = [sys.executable, "-c", code, argument]
    out = subprocess.run(line, cwd=tmp_path, text=True, capture_output=True, check=True)
    assert out.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.name=test_resnett"], "model.name=test_resnett: Unknown model"),
        (["optimizer.name=sdg"], "optimizer.name=sdg: choose from"),
        (
            ["data.readers.val.split=all"],
            "data.readers.val=ftc.benchmarks.digits.mnist: split='all': choose from tr",
        ),
        (["partition.seen=[zero]"], "partition.seen=zero: no such class; choose from 0, 1, 2"),
        (["+trainer.max_epoch=3"], "trainer: "),
        (["trainer=ddp_cpu", "data.batch_size=25"], "data.batch_size=25: is shared by 2 processes; choose a"),
        (["logger.csv._target_=ftc.nowhere"], "logger.csv=ftc.nowhere: "),
        (["+logger.csv.colour=red"], "logger.csv=ftc.assembly.loggers.csv_logger: "),
    ],
)
def test_what_only_building_can_tell_leaves_no_folder_either(monkeypatch, tmp_path, overrides, message):
    monkeypatch.chdir(tmp_path)
    config = composed(TrainConfig, "train", "run_dir=run", *overrides)
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        train(config)
    assert list(tmp_path.iterdir()) == []


def test_what_building_tells_is_one_line_as_well(command, tmp_path):
    result = command("optimizer.name=sdg")
    assert result.returncode == 2
    assert result.stderr.startswith("ftc: error: optimizer.name=sdg: choose from")
    assert result.stderr.count("\n") == 1
    assert not Path(tmp_path, "outputs").exists()


def test_a_folder_that_is_no_run_is_left_alone(command, tmp_path):
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "cat.jpg").write_text("miaow")
    result = command(f"run_dir={precious}")
    assert result.returncode == 2
    assert f"run_dir={precious}: exists and is no run folder" in result.stderr
    assert [p.name for p in precious.iterdir()] == ["cat.jpg"]
    assert not Path(tmp_path, "outputs").exists()
