"""Runs that are killed and started again end as if nobody had killed them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from ftc import InputError
from ftc.assembly.loggers import MetricsFile
from ftc.callbacks import Checkpointing
from ftc.config.commands import TrainConfig
from ftc.finetune import FineTuneModule
from ftc.runs.train import train
from tests.conftest import composed
from tests.interruption import TINY, Interrupted, assert_same, content, kill_at_random
from tests.runs.test_train import wandb_records

SHORT = (
    "source.max_epochs=1",
    "source.iterations_per_epoch=2",
    "trainer.max_epochs=2",
    "data.iterations_per_epoch=4",
    "data.gallery_every=null",
    "calibration.use=[symmetric,alg]",
    "logger=csv",
    "checkpoint_minutes=0.0000001",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("interrupted")


@pytest.fixture(scope="module")
def whole(home) -> dict:
    """What the run leaves that nobody interrupts."""
    run = Interrupted(home / "whole", *TINY)
    run.finish()
    return content(run.run)


# Moments, by what lies in the folder.
def source_in_training(folder: Path) -> bool:
    return any(folder.glob("outputs/cache/source/*.ckpt"))


def second_fold_in_training(folder: Path) -> bool:
    folds = folder / "outputs" / "cache" / "folds"
    return len(list(folds.glob("*.safetensors"))) == 1 and any(folds.glob("*.ckpt"))


def checkpoint_half_written(folder: Path) -> bool:
    return any(folder.glob("run/checkpoints/.part-last*"))


def report_half_written(folder: Path) -> bool:
    return any(folder.glob("run/figures/*.png"))


def test_a_run_killed_at_every_stage_ends_as_if_it_had_not_been(whole, home):
    run = Interrupted(home / "killed", *TINY)
    for moment in (
        source_in_training,
        second_fold_in_training,
        checkpoint_half_written,
        report_half_written,
    ):
        assert run.kill_when(moment) == -signal.SIGKILL
        assert not (run.run / "results.json").exists()
    run.finish()
    assert_same(whole, content(run.run))
    assert run.printed().count("Source model trained") == 1
    assert run.printed().count("Going on with the unfinished run") == 2
    assert not list(run.folder.rglob(".part-*"))
    assert not list(run.folder.rglob("outputs/**/*.ckpt"))


def test_every_wandb_folder_of_an_interrupted_run_is_of_one_run(whole, home):
    def runs_and_epochs(folder: Path) -> tuple[set[str], list[set[float]]]:
        ids, epochs = set(), []
        for file in sorted(folder.glob("run/wandb/offline-run-*/*.wandb")):
            records = wandb_records(file)
            ids |= {r.run.run_id for r in records if r.WhichOneof("record_type") == "run"}
            rows = [r.history.item for r in records if r.WhichOneof("record_type") == "history"]
            named = [{i.key or ".".join(i.nested_key): i.value_json for i in row} for row in rows]
            epochs.append({json.loads(row["val/epoch"]) for row in named if "val/epoch" in row})
        return ids, epochs

    (once,), (epochs,) = runs_and_epochs(home / "whole")
    assert epochs == {-1, 0, 1}
    (again,), parts = runs_and_epochs(home / "killed")
    assert once != again
    assert len(parts) > 1
    assert set().union(*parts) == epochs


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [(), ("data.num_workers=1", "calibration.use=[alg]", "ema=0.9")],
    ids=["every-stage", "loaders-of-their-own"],
)
def test_a_run_killed_at_twenty_random_moments(home, overrides, request):
    place, arguments = home / request.node.callspec.id, (*TINY, *overrides)
    whole = Interrupted(place / "whole", *arguments)
    started = time.monotonic()
    whole.finish()
    longest = (time.monotonic() - started) / 2
    killed = attempt = 0
    while killed < 20:
        run = Interrupted(place / str(attempt), *arguments)
        killed += kill_at_random(run, 20 - killed, longest, seed=attempt)
        assert_same(content(whole.run), content(run.run))
        attempt += 1


class Killed(BaseException):
    """Stands for a signal that nobody can handle, in this process."""


def config(*overrides: str) -> TrainConfig:
    return composed(TrainConfig, "train", "figures=[]", *SHORT, *overrides)


@pytest.fixture(scope="module")
def at_work(tmp_path_factory):
    before, folder = Path.cwd(), tmp_path_factory.mktemp("work")
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        pytest.param(("ema=0.9",), [1, 2, 3, 4, 5, 6, 7, 8], marks=pytest.mark.slow),
        pytest.param(
            ("trainer.accumulate_grad_batches=2", "optimizer.name=adamw"),
            [1, 2, 3, 4],
            marks=pytest.mark.slow,
        ),
        # An epoch that is not validated leaves its checkpoint to the next one's first step.
        pytest.param(
            ("+trainer.check_val_every_n_epoch=2", "calibration.use=[alg]", "ema=0.9"),
            [1, 2, 3, 5, 6, 7, 8],
            marks=pytest.mark.slow,
        ),
        *(
            pytest.param((f"method={method}", *options), [1, 2, 3, 4, 5, 6, 7, 8], marks=pytest.mark.slow)
            for method, *options in (
                ("linear_probe",),
                ("lora",),
                ("lp_ft", "method.probe=0.4"),
                ("lolsgd", "method.rounds=1"),
                ("rehearsal", "method.share=0.3"),
            )
        ),
    ],
    ids=[
        *("averaged", "accumulated", "validated-at-the-end", "linear-probe"),
        *("lora", "lp-ft", "lolsgd", "rehearsal"),
    ],
)
def test_killed_behind_every_checkpoint(at_work, overrides, steps, monkeypatch, request):
    whole, killed = (Path(f"{request.node.callspec.id}-{end}") for end in ("whole", "killed"))
    train(config(*overrides, f"run_dir={whole}"))
    save, saved = Trainer.save_checkpoint, []

    def save_and_die(self: Trainer, path: Path) -> None:
        save(self, path)
        saved.append(self.global_step)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", save_and_die)
        while not (killed / "results.json").exists():
            with suppress(Killed):
                train(config(*overrides, f"run_dir={killed}"))
    assert saved == steps
    assert_same(content(whole), content(killed))


@pytest.mark.slow
def test_sigterm_saves_and_ends_the_run(whole, home):
    shutil.copytree(home / "whole" / "outputs", home / "stopped" / "outputs")
    run = Interrupted(home / "stopped", *TINY, "checkpoint_minutes=60")
    training = run.run / "metrics.csv"

    def first_epoch_validated(_: Path) -> bool:
        return training.is_file() and "train/loss" in training.read_text()

    assert run.kill_when(first_epoch_validated, signal.SIGTERM) == 128 + signal.SIGTERM
    assert "ftc: SIGTERM: saved run/checkpoints/last.ckpt; the same command goes on" in run.printed()
    assert "Traceback" not in run.printed()
    run.finish()
    assert_same(whole, content(run.run))


@pytest.mark.slow
def test_slurm_is_asked_to_requeue_before_the_time_is_up(at_work, monkeypatch):
    asked = at_work / "asked"
    program = at_work / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    step = FineTuneModule.training_step

    def training_step(self, batch, batch_idx):
        if self.trainer.current_epoch == 1 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(FineTuneModule, "training_step", training_step)
        with pytest.raises(SystemExit) as ended:
            train(config("run_dir=requeued", "checkpoint_minutes=60"))
    assert ended.value.code == 128 + signal.SIGUSR1
    assert asked.read_text() == "requeue 4711\n"
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    kept = torch.load("requeued/checkpoints/last.ckpt", weights_only=True)
    assert kept["global_step"] == 6
    train(config("run_dir=requeued", "checkpoint_minutes=60"))
    train(config("run_dir=undisturbed", "checkpoint_minutes=60"))
    assert_same(content(Path("undisturbed")), content(Path("requeued")))


def test_who_handled_a_signal_before_decides_what_follows(at_work, monkeypatch):
    told = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: told.append(number))
    step = FineTuneModule.training_step

    def training_step(self, batch, batch_idx):
        if self.trainer.current_epoch == 0 and batch_idx == 1 and not told:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert not told
        return step(self, batch, batch_idx)

    monkeypatch.setattr(FineTuneModule, "training_step", training_step)
    try:
        train(config("run_dir=handled", "checkpoint_minutes=60"))
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert told == [signal.SIGUSR2]
    assert Path("handled/results.json").is_file()


def interrupted_at(run_dir: str, monkeypatch, *overrides: str) -> None:
    def die(self, *_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointing, "on_train_epoch_end", die)
        with pytest.raises(Killed):
            train(config(f"run_dir={run_dir}", *overrides))
    assert (Path(run_dir) / "checkpoints" / "last.ckpt").is_file()


def test_what_is_not_the_same_run_is_not_gone_on_with(at_work, monkeypatch, capsys):
    interrupted_at("changed", monkeypatch)
    capsys.readouterr()
    with pytest.raises(
        InputError, match=r"run_dir=changed: holds an unfinished run of another configuration"
    ):
        train(config("run_dir=changed", "optimizer.lr=0.5"))
    begun = Path("changed/stages/begun.json")
    identity = json.loads(begun.read_text())
    identity["versions"]["torch"] = "1.0"
    begun.write_text(json.dumps(identity))
    train(config("run_dir=changed"))
    assert "other versions of libraries; it is begun anew" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("override", ["resume=never", "overwrite=true"])
def test_a_run_is_begun_anew_where_one_wants_that(at_work, monkeypatch, capsys, override):
    place = override.replace("=", "-")
    interrupted_at(place, monkeypatch)
    seen = []
    step = FineTuneModule.training_step
    monkeypatch.setattr(
        FineTuneModule, "training_step", lambda self, *args: seen.append(args[1]) or step(self, *args)
    )
    train(config(f"run_dir={place}", override))
    assert len(seen) == 8
    assert "Going on" not in capsys.readouterr().out


def test_a_folder_is_replaced_whole(at_work, monkeypatch):
    interrupted_at("replaced", monkeypatch)
    rename = Path.rename

    def die_between(self, target):
        rename(self, target)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die_between)
        with pytest.raises(Killed):
            train(config("run_dir=replaced", "resume=never"))
    train(config("run_dir=replaced"))
    assert Path("replaced/results.json").is_file()
    assert not list(Path().glob(".replaced-*"))


def test_rows_that_are_logged_again_replace_themselves(tmp_path):
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path)
    first.log_metrics({"val/a": 0.25, "val/b": 1.0}, 3)
    first.log_metrics({"train/loss": 2.0}, 3)
    first.save()
    again = MetricsFile(path)
    again.log_metrics({"val/a": 0.5, "val/b": 1.5}, 3)
    again.log_metrics({"train/loss": 1.0}, 7)
    again.save()
    assert path.read_text().splitlines() == [
        "step,train/loss,val/a,val/b",
        "3,,0.5,1.5",
        "3,2.0,,",
        "7,1.0,,",
    ]
