"""Where output goes: any place is right, or refused in one line."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

from ftc.cli.launch import conf_dir
from ftc.cli.spelling import quoted, spelt
from tests.commands import run_module, run_train

QUICK = (
    *("source.max_epochs=1", "source.iterations_per_epoch=2", "trainer.max_epochs=1"),
    *("data.iterations_per_epoch=2", "calibration.use=[alg]", "logger=csv", "data.gallery_every=null"),
)

NOWHERE = {
    "output_dir=/proc/out": r"/proc/out: no such file or directory; choose another output_dir",
    "output_dir=file/out": r"file/out.*: not a directory; choose another output_dir",
    "run_dir=file": "run_dir=file: exists and is no run folder; choose another or remove it",
    "run_dir=.": r"run_dir=\.: is the folder that the command runs in; name one inside it",
    "run_dir=..": r"run_dir=\.\.: is the folder that the command runs in",
    f"run_dir={'long' * 80}": "file name too long; choose another run_dir",
    f"name={'long' * 80}": r"name=long.*: string should match pattern",
    "cache_dir=file": r"file.*: (not a directory|file exists).*cache_dir",
    "cache_dir=/proc/cache": r"/proc/cache.*: no such file or directory; choose another cache_dir",
}


@pytest.mark.parametrize(
    ("command", "place"),
    [
        *(("train", place) for place in NOWHERE),
        *(("calibrate", place) for place in NOWHERE if not place.startswith("cache_dir")),
    ],
)
def test_places_that_cannot_be_written_to_get_one_line(tmp_path, command, place):
    (tmp_path / "file").write_text("mine")
    options = QUICK
    if command == "calibrate":
        logits = np.random.default_rng(0).normal(size=(40, 4))
        np.savez(tmp_path / "eval.npz", logits=logits, target=np.arange(40) % 4)
        options = ("eval=eval.npz", "partition.seen=[0,1]", "calibration.use=[prior_matched]")
    done = run_module(command, tmp_path, *options, place)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert re.search(NOWHERE[place], done.stderr), done.stderr
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_any_path_is_written_to_and_printed_as_it_is(tmp_path):
    folder = "O'Brien's [v2]/[/b]=\"caf\u00e9 \u03b3\""
    done = run_train(tmp_path, *QUICK, f"output_dir={folder}")
    assert done.returncode == 0, done.stderr
    (results,) = (tmp_path / folder).glob("*/results.json")
    assert f"Run folder: {results.parent.relative_to(tmp_path)}" in done.stdout
    swept = run_train(tmp_path, "-m", *QUICK, f"output_dir={folder}", "seed=1,2")
    assert swept.returncode == 0, swept.stderr
    assert len(list((tmp_path / folder / "sweeps").glob("*/*/results.json"))) == 2


def test_home_is_where_the_user_is(tmp_path):
    done = run_train(tmp_path, *QUICK, "output_dir=~/out", "cache_dir='~/kept'", HOME=str(tmp_path / "me"))
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "me" / "out").glob("*/results.json"))
    assert (tmp_path / "me" / "kept" / "source").is_dir()
    assert not (tmp_path / "~").exists()


@pytest.mark.slow
def test_a_container_without_home_or_user(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import pwd\n\ndef nobody(uid):\n    raise KeyError(uid)\n\npwd.getpwuid = nobody\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "USER", "LOGNAME")}
    path = os.pathsep.join(filter(None, (str(tmp_path), environment.get("PYTHONPATH"))))
    environment |= {"PYTHONPATH": path, "WANDB_MODE": "offline"}
    line = [sys.executable, "-m", "ftc.train", *(x for x in QUICK if x != "logger=csv")]
    done = subprocess.run(line, cwd=tmp_path, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/*/results.json"))


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_lacks_letters_does_not_stop_a_run(tmp_path, encoding):
    done = subprocess.run(
        [sys.executable, "-m", "ftc.train", *QUICK],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"Run folder" in done.stdout


@pytest.mark.slow
def test_whoever_stops_reading_does_not_stop_the_run(tmp_path):
    line = f"{sys.executable} -m ftc.train {' '.join(QUICK)} | head -1"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.glob("outputs/*/results.json"))
    assert "Traceback" not in done.stderr


def test_files_follow_the_umask(tmp_path):
    done = run_train(tmp_path, *QUICK)
    assert done.returncode == 0, done.stderr
    umask = os.umask(0)
    os.umask(umask)
    for path in (tmp_path / "outputs").rglob("*"):
        if path.is_file() and path.suffix != ".lock":
            assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path


@pytest.mark.parametrize("silence", ["logger=null", "~logger", "+trainer.enable_progress_bar=false"])
def test_what_is_not_wanted_is_left_out(tmp_path, silence):
    wanted = [x for x in QUICK if x != "logger=csv" or "logger" not in silence]
    done = run_train(tmp_path, *wanted, silence, "run_dir=run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "metrics.csv").is_file() == ("logger" not in silence)
    assert not (tmp_path / "run" / "wandb").exists()
    assert ("epoch 1 of 1" in done.stdout) == ("bar" not in silence)


def test_yaml_of_ones_own_that_is_none_names_file_and_line(tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "night.yaml").write_text("name: night\nseed: [1, 2\ndata: x\n")
    done = run_train(tmp_path, "--config-dir", "mine", "experiment=night")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "night.yaml: line 3: no YAML" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("where", ["Training the source model", "Fine-tuning"])
def test_ctrl_c_says_how_to_go_on(tmp_path, where):
    long = ("source.max_epochs=50", "trainer.max_epochs=50")
    quick = ("source.iterations_per_epoch=2",) if where == "Fine-tuning" else ()
    line = [sys.executable, "-u", "-m", "ftc.train", *QUICK[4:], *long, *quick]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, cwd=tmp_path, env=environment, text=True, **pipes) as process:
        for printed in process.stdout:
            if where in printed:
                break
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "goes on from" in stderr and "Traceback" not in stderr


@pytest.mark.parametrize(
    ("argument", "wanted"),
    [
        ("logger=null", ["logger=[]"]),
        ("~logger", ["logger=[]"]),
        ("seed=null", ["seed=null"]),
        ("~seed", ["~seed"]),
        ("data=digits", ["data=digits"]),
        ("partition.seen=[0,1]", ["partition.seen=[0,1]"]),
        ("seed=1,2", ["seed=1,2"]),
        ("output_dir=a=b", ["output_dir='a=b'"]),
        ("output_dir=O'Brien", ["output_dir='O\\'Brien'"]),
        (r"data.groups=(film\d+)-", [r"data.groups='(film\d+)-'"]),
        ("a.b={_target_: x.Y, z: 1}", ["a.b=null", "a.b={_target_: x.Y, z: 1}"]),
        ("method={_target_: x.Y}", ["method=[]", "+method={_target_: x.Y}"]),
        ("trainer=1", ["trainer='1'"]),
        ("logger=[csv,wandb]", ["logger=[csv,wandb]"]),
        ("trainer=cpu,auto", ["trainer=cpu,auto"]),
        ("+a.b={_target_: x.Y}", ["+a.b={_target_: x.Y}"]),
        ("model.kwargs={drop_rate: 0.1}", ["++model.kwargs={drop_rate: 0.1}"]),
        ("+a.b={x: 1}", ["+a.b={x: 1}"]),
        ("a={x: 1},{x: 2}", ["a={x: 1},{x: 2}"]),
        ("--cfg", ["--cfg"]),
        ("-m", ["-m"]),
    ],
)
def test_arguments_are_spelt_for_hydra(argument, wanted):
    assert spelt(argument, conf_dir()) == wanted


@pytest.mark.parametrize("text", ["", "a'b", "a\\", "\\'", "a\\\\'", "[v2]", "${x", "a,b", "é \u03b3"])
def test_quoted_texts_are_read_back(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    value = OverridesParser.create().parse_override(f"key={quoted(text)}").value()
    assert getattr(value, "text", value) == text
