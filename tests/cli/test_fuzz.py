"""Bad values for every key of every command: a line, or a run that works; never a traceback."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from ftc.cli.launch import KINDS, conf_dir
from tests.commands import start

TINY = (
    *("source.max_epochs=1", "source.iterations_per_epoch=2", "trainer.max_epochs=1"),
    *("data.iterations_per_epoch=2", "calibration.use=[alg,symmetric]", "logger=csv", "run_dir=run"),
    "data.gallery_every=null",
)
GIVEN: dict[str, tuple[str, ...]] = {
    "train": TINY,
    "evaluate": (*TINY, "checkpoint=../weights.safetensors"),
    "calibrate": ("eval=../eval.npz", "partition.seen=[0,1]", "run_dir=run"),
    "compare": ("runs=../runs",),
    "report": ("runs=[../runs]", "to=report", "figures=[]"),
    "deploy": ("run=../runs/run", "to=deployed"),
    "predict": ("model=../runs/run", "images=../images", "to=out.csv"),
}
# Commands whose configuration chooses no group; a key may be called as one.
ALONE = ("compare", "report", "deploy", "predict")
VALUES = (
    *("null", "-1", "0", "1", "2.5", "1e300", "-1e300", "inf", "nan", "99999999999999999999", "true", "x"),
    *(
        "''",
        "[]",
        "{}",
        "[1,2]",
        "[null]",
        "{a: 1}",
        "caf\u00e9",
        "../../..",
        "/proc/x",
        "~",
        "???",
        "$",
        "${nothing}",
    ),
    *(
        "{_target_: os.system}",
        "{_target_: ftc.nothing}",
        "{_target_: 5}",
        "[[[]]]",
        "'a b'",
        "\\",
        "1,2",
        "(",
        "%s",
    ),
)
SECONDS = 60.0
# A value may be right and make the run long; such a run is stopped.
PATIENCE = 30.0


def keys(command: str) -> list[str]:
    """Every key of a command, nodes and leaves."""
    if command in ALONE:
        content = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{command}.yaml"), resolve=False)
        return [key for key in _keys(content) if not key.startswith(("hydra", "defaults"))]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = OmegaConf.to_container(compose(command, list(GIVEN[command])), resolve=False)
    return list(_keys(config))


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    for name, value in node.items() if isinstance(node, dict) else ():
        key = f"{prefix}.{name}" if prefix else str(name)
        yield key
        yield from _keys(value, key)


def run(command: str, folder: Path, *arguments: str) -> tuple[int, str]:
    """Run a command for so long as we are patient: its status, 0 where it was stopped, and its errors."""
    folder.mkdir(parents=True)
    environment = {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    environment.pop("WANDB_API_KEY", None)
    process = start(command, folder, arguments, environment, folder / "out.txt", folder / "err.txt")
    process.join(PATIENCE)
    status = process.exitcode
    if status is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return status or 0, (folder / "err.txt").read_text(errors="replace")


@pytest.mark.slow
def test_no_value_of_any_key_is_a_traceback(tmp_path):
    logits = np.random.default_rng(0).normal(size=(40, 4))
    np.savez(tmp_path / "eval.npz", logits=logits, target=np.arange(40) % 4)
    assert run("train", tmp_path / "runs", *TINY)[0] == 0
    (tmp_path / "images").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "images" / "one.png")
    os.link(tmp_path / "runs" / "run" / "fine_tuned.safetensors", tmp_path / "weights.safetensors")
    seed = int(os.environ.get("FTC_FUZZ_SEED", time.time()))
    generator = random.Random(seed)
    every = {command: keys(command) for command in KINDS}
    until = time.monotonic() + float(os.environ.get("FTC_FUZZ_SECONDS", SECONDS))
    number, wrong = 0, []
    while time.monotonic() < until:
        command = generator.choice(list(every))
        bad = f"{generator.choice(every[command])}={generator.choice(VALUES)}"
        given = [a for a in GIVEN[command] if a.partition("=")[0] != bad.partition("=")[0]]
        arguments = [*given, *([f"output_dir={tmp_path}/out"] if command not in ALONE else []), bad]
        status, stderr = run(command, tmp_path / str(number), *arguments)
        if "Traceback" in stderr or status not in (0, 2) or (status == 2 and "ftc: error: " not in stderr):
            wrong.append(f"{command} {bad}: status {status}: {stderr[-600:]}")
        number += 1
    assert not wrong, f"seed {seed}, {len(wrong)} of {number}:\n" + "\n".join(wrong)
