"""Real runs of the command line that are killed, and what must be the same in two run folders."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from tests.commands import start

TINY = (
    "source.max_epochs=2",
    "source.iterations_per_epoch=4",
    "trainer.max_epochs=2",
    "data.iterations_per_epoch=5",
    "data.gallery_every=null",
    "calibration.use=[interpolated,interpolated_prototypes,symmetric,pcv,alg]",
    "calibration.bootstrap.replicates=5",
    "checkpoint_minutes=0.001",
    "run_dir=run",
)


class Interrupted:
    """A run in a folder, to be started and killed any number of times.

    Args:
        folder: of outputs, caches and what is printed.
        arguments: of the command line.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.arguments = arguments
        self.run = folder / "run"
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> Any:
        out = self.folder / "out.txt"
        environment = {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
        return start("train", self.folder, self.arguments, environment, out, out)

    def finish(self) -> None:
        """Let it come to its end."""
        process = self.start()
        process.join()
        assert process.exitcode == 0, self.printed()

    def kill_when(
        self, moment: Callable[[Path], Any], number: int = signal.SIGKILL, limit: float = 120
    ) -> int:
        """Start it, and send a signal as soon as the folder is in a state; the exit code."""
        process = self.start()
        until = time.monotonic() + limit
        while not moment(self.folder):
            assert process.exitcode is None, f"finished before the moment came\n{self.printed()}"
            assert time.monotonic() < until, f"the moment never came\n{self.printed()}"
        os.kill(process.pid, number)
        process.join()
        self.clear(process.pid)
        return process.exitcode

    def kill_after(self, seconds: float) -> bool:
        """Start it, and kill it after so many seconds; False where it was finished before."""
        process = self.start()
        process.join(seconds)
        if process.exitcode is not None:
            assert process.exitcode == 0, self.printed()
            return False
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        self.clear(process.pid)
        return True

    @staticmethod
    def clear(session: int) -> None:
        """Kill what is left of a process's own."""
        with suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)

    def printed(self) -> str:
        return (self.folder / "out.txt").read_text()


def kill_at_random(run: Interrupted, times: int, longest: float, seed: int = 0) -> int:
    """Kill a run at random moments so often, then let it finish; how often it was, which may be less."""
    generator = random.Random(seed)
    killed = 0
    while killed < times:
        if not run.kill_after(generator.uniform(0.2, longest)):
            return killed
        killed += 1
    run.finish()
    return killed


def content(run: Path) -> dict[str, Any]:
    """Everything that a run leaves but times, W&B's files and what is written by the clock."""
    record = json.loads((run / "results.json").read_text())
    del record["timing"]
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    with (run / "metrics.csv").open() as file:
        metrics = list(csv.DictReader(file))
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*") if "wandb" not in path.parts)
    return {
        "files": names,
        "record": record,
        "weights": checkpoint["state_dict"],
        "optimiser": checkpoint["optimizer_states"],
        "metrics": metrics,
        "epochs": pq.read_table(run / "epochs.parquet").to_pylist(),
        "deployed": load_file(run / "checkpoints" / "calibrated.safetensors"),
        "predictions": load_file(run / "predictions.safetensors"),
        "heads": load_file(heads) if (heads := run / "heads.safetensors").is_file() else {},
    }


def assert_same(expected: Any, found: Any, where: str = "") -> None:
    """Equality to the last bit, with the place of the first difference."""
    if isinstance(expected, dict):
        assert expected.keys() == found.keys(), where
        for name in expected:
            assert_same(expected[name], found[name], f"{where}/{name}")
    elif isinstance(expected, list):
        assert len(expected) == len(found), f"{where}: {expected} {found}"
        for position, pair in enumerate(zip(expected, found, strict=True)):
            assert_same(*pair, f"{where}[{position}]")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(expected, found), where
    else:
        assert expected == found or expected != expected, f"{where}: {expected} and {found}"
