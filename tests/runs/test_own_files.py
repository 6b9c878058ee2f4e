"""Files of a run's own that are damaged: a line or a right result, never a traceback or another result."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from ftc.results import RunRecord
from tests.commands import run_module, run_train
from tests.interruption import TINY, Interrupted

ARGUMENTS = (*TINY, "logger=csv", "calibration.use=[symmetric,alg]")


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zeroed(content: bytes) -> bytes:
    return bytes(len(content))


def flipped(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


def emptied(content: bytes) -> bytes:
    return b""


DAMAGES = (truncated, zeroed, flipped, emptied)

# What a damaged file of an unfinished run answers, by its name.
UNFINISHED = {
    "run/stages/begun.json": "is damaged; it is begun anew",
    "run/stages/source_evaluation.pt": "the stage source_evaluation had found is damaged; it is done again",
    "run/checkpoints/last.ckpt": "last.ckpt: is damaged; this training begins anew",
    "run/metrics.csv": "metrics.csv: is damaged",
    "cache": "is damaged; it is made again",
}


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory) -> Path:
    """A run that was killed behind its first epoch."""
    run = Interrupted(tmp_path_factory.mktemp("unfinished"), *ARGUMENTS)
    run.kill_when(lambda folder: (folder / "run" / "checkpoints" / "last.ckpt").is_file(), signal.SIGKILL)
    return run.folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The same run, never interrupted."""
    home = tmp_path_factory.mktemp("whole")
    assert run_train(home, *ARGUMENTS).returncode == 0
    return home


def copied(home: Path, to: Path) -> Path:
    shutil.copytree(home, to, dirs_exist_ok=True)
    return to


def damaged(path: Path, damage) -> bool:
    """Damage a file; False where that changes nothing."""
    content = path.read_bytes()
    path.write_bytes(damage(content))
    return path.read_bytes() != content


def cached(home: Path, part: str = "source") -> Path:
    return next((home / "outputs" / "cache" / part).glob("*.safetensors"))


@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_run_goes_on_without_what_is_damaged(unfinished, whole, tmp_path, name):
    home = copied(unfinished, tmp_path)
    assert damaged(cached(home) if name == "cache" else home / name, truncated)
    done = run_train(home, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert UNFINISHED[name] in done.stdout + done.stderr
    assert RunRecord.read(home / "run").stages == RunRecord.read(whole / "run").stages


@pytest.mark.slow
def test_every_file_of_an_unfinished_run_is_damaged_in_every_way(unfinished, whole, tmp_path):
    right = RunRecord.read(whole / "run").stages
    files = [p.relative_to(unfinished) for p in sorted(unfinished.rglob("*")) if p.is_file()]
    for number, file in enumerate(files):
        for damage in DAMAGES:
            home = copied(unfinished, tmp_path / f"{number}-{damage.__name__}")
            if file.suffix in (".lock", ".txt") or not damaged(home / file, damage):
                continue
            done = run_train(home, *ARGUMENTS)
            where = f"{file}, {damage.__name__}: {done.stderr}"
            assert "Traceback" not in done.stderr, where
            assert done.returncode in (0, 2), where
            if done.returncode == 0:
                assert RunRecord.read(home / "run").stages == right, where
            else:
                assert done.stderr.count("\n") == 1, where
            shutil.rmtree(home)


@pytest.mark.slow
def test_every_file_of_a_finished_run_is_damaged_in_every_way(whole, tmp_path):
    right = run_train(whole, *ARGUMENTS).stdout
    files = [p.relative_to(whole) for p in sorted((whole / "run").rglob("*")) if p.is_file()]
    for number, file in enumerate(files):
        for damage in DAMAGES:
            home = copied(whole, tmp_path / f"{number}-{damage.__name__}")
            if not damaged(home / file, damage):
                continue
            for command, arguments in (("train", ARGUMENTS), ("compare", ("runs=run", "refit=true"))):
                done = run_module(command, home, *arguments)
                where = f"{command}, {file}, {damage.__name__}: {done.stderr}"
                assert "Traceback" not in done.stderr, where
                assert done.returncode in (0, 2), where
                assert done.returncode == 0 or done.stderr.count("\n") == 1, where
                if command == "train" and done.returncode == 0:
                    assert done.stdout == right, where
            shutil.rmtree(home)


def test_results_with_another_number_are_not_the_run_s(whole, tmp_path):
    home = copied(whole, tmp_path)
    path = home / "run" / "results.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content))  # laid out in another way
    assert RunRecord.read(home / "run") == RunRecord.read(whole / "run")
    content["stages"]["fine_tuned"]["acc_all"] += 0.1
    path.write_text(json.dumps(content))
    done = run_train(home, *ARGUMENTS)
    assert done.returncode == 2
    assert "results.json: was changed after the run; repeat it with overwrite=true" in done.stderr


RESULTS = {
    "bad letters": b'{"schema": 2, "experiment": "\xff\xfe"}',
    "wrong types": b'{"schema": 2, "experiment": 5, "stages": [1]}',
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "nothing": b"",
    "a number": b"1e400",
    "another schema": b'{"schema": 99}',
}


@pytest.mark.parametrize("kind", RESULTS)
def test_results_that_are_none_are_one_line_for_every_reader(whole, tmp_path, kind):
    home = copied(whole, tmp_path)
    (home / "run" / "results.json").write_bytes(RESULTS[kind])
    for command, arguments in (("train", ARGUMENTS), ("compare", ("runs=run",))):
        done = run_module(command, home, *arguments)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert "run/results.json: " in done.stderr


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        # Half a YAML file is a YAML file.
        *(("config.yaml", damage) for damage in (zeroed, emptied)),
        *(("predictions.safetensors", damage) for damage in DAMAGES),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_compare_names_the_file_that_is_damaged(whole, tmp_path, file, damage):
    home = copied(whole, tmp_path)
    damaged(home / "run" / file, damage)
    done = run_module("compare", home, "runs=run", "refit=true")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert f"run/{file}: " in done.stderr


def test_weights_that_were_changed_are_not_taken_for_the_run_s(whole, tmp_path):
    home = copied(whole, tmp_path)
    damaged(home / "run" / "fine_tuned.safetensors", flipped)
    done = run_module("evaluate", home, "checkpoint=run/fine_tuned.safetensors", "calibration.use=[alg]")
    assert done.returncode == 2
    assert "fine_tuned.safetensors: is damaged" in done.stderr


def test_a_checkpoint_of_something_else_is_not_gone_on_from(unfinished, tmp_path):
    import torch

    home = copied(unfinished, tmp_path)
    torch.save({"state_dict": {}, "epoch": 3}, home / "run" / "checkpoints" / "last.ckpt")
    done = run_train(home, *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert "last.ckpt: is damaged; this training begins anew" in done.stdout
    assert json.loads((home / "run" / "results.json").read_text())["schema"] == 2
