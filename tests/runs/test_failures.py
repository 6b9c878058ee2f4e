"""What goes wrong at work is answered in one line, and nothing good is lost."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from google.protobuf.message import DecodeError

from ftc import CalibrationCallback, InputError
from ftc.assembly.loggers import wandb_logger
from ftc.benchmarks.digits import mnist
from ftc.callbacks import StopWhenDiverged
from ftc.cli.failures import explained
from ftc.config.commands import TrainConfig
from ftc.data import ArrayReader
from ftc.files import written_whole
from ftc.finetune import FineTuneModule
from ftc.runs.train import train
from tests.conftest import composed
from tests.runs.test_train import wandb_records

SHORT = (
    "source.max_epochs=1",
    "data.iterations_per_epoch=4",
    "source.iterations_per_epoch=2",
    "trainer.max_epochs=3",
    "calibration.use=[alg]",
    "logger=csv",
    "run_dir=run",
)


def config(*overrides: str) -> TrainConfig:
    return composed(TrainConfig, "train", "figures=[]", *SHORT, *overrides)


@pytest.fixture
def at_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_last_checkpoint(at_work, monkeypatch):
    step = FineTuneModule.training_step
    seen = []

    def training_step(self, batch, batch_idx):
        seen.append(self.trainer.current_epoch)
        loss = step(self, batch, batch_idx)
        # After the source's two steps and an epoch of four: the second step of the second epoch.
        return loss * torch.nan if len(seen) == 2 + 4 + 2 else loss

    monkeypatch.setattr(FineTuneModule, "training_step", training_step)
    with pytest.raises(InputError, match=r"not finite from iteration 5 on \(epoch 1\); .* optimizer\.lr"):
        train(config())
    kept = torch.load(at_work / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    assert all(v.isfinite().all() for v in kept["state_dict"].values())
    assert not (at_work / "run" / "results.json").exists()


def test_a_diverged_source_model_is_not_kept(at_work, monkeypatch):
    monkeypatch.setattr(
        FineTuneModule, "training_step", lambda self, *_: self.classifier.head.weight.sum() * torch.inf
    )
    with pytest.raises(InputError, match="not finite from iteration 0 on"):
        train(config())
    assert not list(Path("outputs/cache/source").glob("*.safetensors"))


def test_a_lock_beside_the_folder_is_the_folders(at_work):
    # Its name is longer than that of the folder, which a disk may still take.
    error = OSError(errno.ENAMETOOLONG, "File name too long", str(at_work / ".run.lock"))
    wanted = r"\.run\.lock: file name too long; choose another run_dir$"
    with pytest.raises(InputError, match=wanted), explained(config()):
        raise error


def test_too_little_memory_names_the_batch(at_work, monkeypatch):
    def training_step(self, batch, batch_idx):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(FineTuneModule, "training_step", training_step)
    wanted = r"data\.batch_size=64: .* trainer\.accumulate_grad_batches=2"
    with pytest.raises(InputError, match=wanted), explained(config()):
        train(config())


class Deadly(ArrayReader):
    """Kills the process that decodes."""

    def decode(self, index):
        os.kill(os.getpid(), 9)


def deadly(split: str) -> Deadly:
    reader = mnist(split)
    return Deadly(reader.images, reader.targets, reader.class_names)


def test_a_killed_loader_names_the_number_of_workers(at_work):
    test = "data.readers.test._target_=tests.runs.test_failures.deadly"
    killed = r"data\.num_workers=1: a loader's process was killed"
    wanted = config(test, "data.num_workers=1")
    with pytest.raises(InputError, match=killed) as caught, explained(wanted):
        train(wanted)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_the_old_file(at_work):
    path = at_work / "results.json"
    path.write_text("old")

    def write() -> None:
        with written_whole(path) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device", str(temporary))

    with (
        pytest.raises(InputError, match=r"output_dir=outputs: no room left on the disk"),
        explained(config()),
    ):
        write()
    assert [p.name for p in at_work.iterdir()] == ["results.json"]
    assert path.read_text() == "old"


def test_other_errors_are_not_touched():
    for error in (RuntimeError("mat1 and mat2"), OSError(errno.EIO, "broken"), KeyError("x")):
        with pytest.raises(type(error)), explained(config()):
            raise error


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (
            "+trainer.limit_test_batches=0.0001",
            "trainer: You requested to check 0.0001 of the `test_dataloader`",
        ),
        ("+trainer.limit_train_batches=0.00001", "trainer: You requested to check 1e-05 of the `train_data"),
        ("trainer.accelerator=tpu", "trainer: Requirement 'torch_xla"),
        ("+trainer.profiler=nothing", "trainer: When passing string value for the `profiler`"),
    ],
)
def test_arguments_that_lightning_looks_at_late_are_a_line(at_work, argument, line):
    wanted = config(argument)
    with pytest.raises(InputError) as caught, explained(wanted):
        train(wanted)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_all_processes_end_where_one_has_diverged():
    asked = []

    def decide(own, all):
        asked.append((own, all))
        return True

    trainer = SimpleNamespace(
        world_size=2,
        strategy=SimpleNamespace(reduce_boolean_decision=decide),
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])],
        gradient_clip_val=None,
        current_epoch=3,
    )
    callback = StopWhenDiverged()
    with pytest.raises(InputError, match=r"not finite in another process \(epoch 3\)"):
        callback.on_train_epoch_end(trainer, None)
    assert asked == [(False, False)]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed"),
            "no room left",
        ),
        (
            ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
            "no room left",
        ),
        (OSError(errno.EDQUOT, "Quota exceeded", "outputs/a"), "no room left on the disk for outputs/a"),
        (
            OSError(errno.EROFS, "x", "outputs/a"),
            "outputs/a: read-only file system; choose another output_dir",
        ),
        (OSError(errno.EACCES, "x", "/data/b"), "/data/b: permission denied"),
        (OSError(errno.ENAMETOOLONG, "x", b"run"), "run: file name too long; choose another run_dir"),
    ],
)
def test_what_a_full_or_closed_disk_raises_is_a_line(error, line):
    with pytest.raises(InputError, match=line) as caught, explained(config()):
        raise error
    assert "\n" not in str(caught.value)


def test_a_folder_in_use_is_refused(at_work):
    train(config("trainer.max_epochs=1"))
    before = json.loads(Path("run/results.json").read_text())
    with (
        FileLock(at_work / ".run.lock"),
        pytest.raises(InputError, match="run_dir=run: another run is at work"),
    ):
        train(config("trainer.max_epochs=1", "overwrite=true"))
    assert json.loads(Path("run/results.json").read_text()) == before


class WandbServer:
    """Enough of W&B's server to begin a run with; then it may go away."""

    def __enter__(self):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                question = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
                name = (question.get("variables") or {}).get("name", "run")
                project = {"id": "p", "name": "ftc", "entity": {"id": "e", "name": "me"}}
                bucket = {"id": "b", "name": name, "displayName": name, "config": "{}", "project": project}
                version = {"max_cli_version": "1.0.0", "min_cli_version": "0.0.1"}
                data = {
                    "viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}"},
                    "serverInfo": {"cliVersionInfo": version, "features": []},
                    "model": None,
                    "upsertBucket": {"bucket": bucket, "inserted": True},
                    "createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []},
                }
                answer = json.dumps({"data": data}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_a_run_goes_on_when_wandbs_server_goes_away(at_work, monkeypatch):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        logger = wandb_logger("run", finish_timeout=2)
        assert logger.experiment.settings.mode == "online"
        logger.log_metrics({"val/acc_all": 0.5}, 1)
    started = time.monotonic()
    for step in range(2, 50):
        logger.log_metrics({"val/acc_all": 0.5}, step)
    assert time.monotonic() - started < 1
    logger.experiment.finish()
    # Two seconds and a little, where it would wait for ever.
    assert time.monotonic() - started < 20
    # W&B's own process writes them in its own time.
    rows: list = []
    until = time.monotonic() + 60
    while len(rows) < 49 and time.monotonic() < until:
        time.sleep(0.2)
        (kept,) = at_work.glob("run/wandb/run-*/*.wandb")
        with suppress(DecodeError):  # a record half-written
            rows = [r for r in wandb_records(kept) if r.WhichOneof("record_type") == "history"]
    assert len(rows) == 49


def test_a_run_goes_on_when_wandbs_process_dies(at_work, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    reported = CalibrationCallback.on_validation_epoch_end

    def on_validation_epoch_end(self, trainer, pl_module):
        if trainer.state.fn == "fit" and trainer.current_epoch == 0:
            subprocess.run(["pkill", "-KILL", "-f", f"wandb-core .*--pid {os.getpid()}"], check=True)
            time.sleep(0.5)
        reported(self, trainer, pl_module)

    monkeypatch.setattr(CalibrationCallback, "on_validation_epoch_end", on_validation_epoch_end)
    with pytest.warns(UserWarning, match=r"W&B failed \(.*nothing more is logged there") as warned:
        train(config("logger=[csv,wandb]"))
    assert sum("W&B failed" in str(w.message) for w in warned) == 1
    assert Path("run/results.json").is_file()
