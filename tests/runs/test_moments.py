"""Runs beside other runs, in folders that others use, and killed at moments that no training sees."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from ftc import InputError
from ftc.benchmarks.digits import mnist
from ftc.config.commands import CalibrateConfig, TrainConfig
from ftc.data import ArrayReader
from ftc.runs.calibrate import calibrate
from ftc.runs.train import train
from tests.conftest import composed
from tests.interruption import Interrupted

SHORT = (
    *("source.max_epochs=1", "source.iterations_per_epoch=2", "trainer.max_epochs=1"),
    *("data.iterations_per_epoch=2", "data.gallery_every=null", "calibration.use=[alg]", "logger=csv"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(
        composed(TrainConfig, "train", "figures=[]", *SHORT, f"output_dir={folder}", f"run_dir={folder}/run")
    )
    return folder / "run"


def mnist_beside_another_run(split: str, run: str) -> ArrayReader:
    """MNIST; while it is read, another run comes to its end."""
    if not Path("run").exists():
        shutil.copytree(run, "run")
    return mnist(split)  # type: ignore[arg-type]


def test_what_another_run_finished_meanwhile_is_shown(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reader = "data.readers.test._target_=tests.runs.test_moments.mnist_beside_another_run"
    another = (reader, f"+data.readers.test.run={finished}", "run_dir=run")
    train(composed(TrainConfig, "train", "figures=[]", *SHORT, *another))
    assert "Finished before; nothing was computed" in capsys.readouterr().out
    found, expected = (path.joinpath("results.json").read_bytes() for path in (Path("run"), finished))
    assert found == expected


def test_a_finished_run_leaves_no_stages(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, "run")
    # As if it had been killed between its results and its cleaning up.
    Path("run/stages").mkdir()
    Path("run/stages/test.pt").write_bytes(b"kept")
    train(composed(TrainConfig, "train", "figures=[]", *SHORT, "run_dir=run"))
    assert {path.name for path in Path("run").iterdir()} == {path.name for path in finished.iterdir()}


class SlowReader(ArrayReader):
    """Takes its time, and leaves a mark that it is at work."""

    def decode(self, index):
        Path(f"decoding-{len(self.targets)}").touch()
        time.sleep(0.05)
        return super().decode(index)


def slow_mnist(split: str, size: int) -> SlowReader:
    base = mnist(split)  # type: ignore[arg-type]
    rows = np.linspace(0, len(base.targets) - 1, size).astype(int)
    return SlowReader(base.images[rows], base.targets[rows], base.class_names)


@pytest.mark.parametrize(("split", "size"), [("val", 40), ("test", 41)])
@pytest.mark.slow
def test_sigterm_ends_an_evaluation(tmp_path, split, size):
    reader = f"data.readers.{split}"
    slow = (f"{reader}._target_=tests.runs.test_moments.slow_mnist", f"+{reader}.size={size}")
    run = Interrupted(tmp_path, *SHORT, *slow, "run_dir=run")
    code = run.kill_when(lambda folder: (folder / f"decoding-{size}").exists(), signal.SIGTERM)
    assert code == -signal.SIGTERM, run.printed()
    assert not (tmp_path / "run" / "results.json").exists()
    run.finish()
    assert "Going on with the unfinished run" in run.printed()


@pytest.fixture
def logits(tmp_path, monkeypatch) -> tuple[str, ...]:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    np.savez("eval.npz", logits=generator.normal(size=(50, 4)), target=np.arange(50) % 4)
    return ("train=eval.npz", "eval=eval.npz", "partition.seen=[0,1]", "run_dir=run")


def test_calibrate_leaves_a_strangers_folder_alone(logits):
    Path("run").mkdir()
    Path("run/photo.jpg").write_text("precious")
    with pytest.raises(InputError, match=r"run_dir=run: exists and is no run folder"):
        calibrate(composed(CalibrateConfig, "calibrate", *logits))
    assert [path.name for path in Path("run").iterdir()] == ["photo.jpg"]


def test_calibrate_waits_for_nobody_and_can_be_done_again(logits):
    with FileLock(".run.lock"), pytest.raises(InputError, match="another run is at work there"):
        calibrate(composed(CalibrateConfig, "calibrate", *logits))
    assert not Path("run").exists()
    calibrate(composed(CalibrateConfig, "calibrate", *logits))
    Path("run/results.json").unlink()
    calibrate(composed(CalibrateConfig, "calibrate", *logits))
    calibrate(composed(CalibrateConfig, "calibrate", *logits, "overwrite=true"))
    assert {path.name for path in Path("run").iterdir()} == {
        "config.yaml",
        "figures",
        "per_class.csv",
        "results.json",
    }
