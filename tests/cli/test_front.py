"""The first word of a command line: the list of commands, each of them, and what is none."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ftc
from ftc.cli.front import COMMANDS, line
from ftc.cli.launch import KINDS
from tests.commands import run_fresh, run_module


def front(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return run_module("__main__", folder, *arguments)


def test_the_list_loads_none_of_the_commands(tmp_path):
    code = (
        "import runpy, sys; sys.argv = ['ftc']; runpy.run_module('ftc', run_name='__main__')\n"
        "print([name for name in ('torch', 'numpy', 'hydra', 'omegaconf', 'pydantic', 'pyarrow', 'rich') "
        "if name in sys.modules])"
    )
    call = [sys.executable, "-c", code]
    shown = subprocess.run(call, cwd=tmp_path, text=True, capture_output=True, check=True).stdout
    assert shown.endswith("\n[]\n")
    listed = [row.split()[0] for row in shown.splitlines() if row.startswith("  ") and 'eval "' not in row]
    assert listed == list(COMMANDS)
    assert all(len(row) <= 80 for row in shown.splitlines())


def test_every_command_says_in_a_line_what_it_does():
    assert all(line(command) for command in COMMANDS)


def test_the_page_of_commands_has_these_lines():
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE) == [
        (name, line(name)) for name in COMMANDS
    ]


def test_what_has_no_flags_of_its_own_is_hydras():
    assert {name for name in COMMANDS if not hasattr(import_module(f"ftc.{name}"), "parser")} == set(KINDS)


@pytest.mark.parametrize("asked", [(), ("-h",)])
def test_help_is_the_list(tmp_path, capsys, monkeypatch, asked):
    monkeypatch.setattr(sys, "argv", ["ftc", *asked])
    import_module("ftc.__main__").main()
    assert capsys.readouterr().out.startswith("usage: ftc COMMAND")


def test_a_command_runs_as_its_own_module_does(tmp_path):
    arguments = ("--cfg", "job", "seed=3", "experiment=toy")
    result, alone = front(tmp_path, "train", *arguments), run_module("train", tmp_path, *arguments)
    assert (result.returncode, result.stdout) == (alone.returncode, alone.stdout)
    assert "seed: 3" in result.stdout


def test_a_command_is_the_main_module_with_its_folder_on_the_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/bin", *sys.path])
    monkeypatch.setattr(sys, "argv", ["/bin/ftc", "doctor", "--json"])
    seen = {}
    monkeypatch.setattr("ftc.cli.front.runpy.run_module", lambda name, **how: seen.update(name=name, **how))
    import_module("ftc.__main__").main()
    assert seen == {"name": "ftc.doctor", "run_name": "__main__", "alter_sys": True}
    assert (sys.argv[1:], sys.path[0]) == (["--json"], str(tmp_path))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trian", "trian: no such command; did you mean train? choose from prepare, train, evaluate, "),
        ("xyz", "xyz: no such command; choose from prepare, train, "),
        ("--verbose", "--verbose: no such command; choose from "),
        ("--completion", "--completion: choose from bash, zsh\n"),
    ],
)
def test_what_is_no_command_gets_a_line(monkeypatch, capsys, word, said):
    monkeypatch.setattr(sys, "argv", ["ftc", word])
    with pytest.raises(SystemExit) as end:
        import_module("ftc.__main__").main()
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"ftc: error: {said}")


def test_the_version_is_ftcs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ftc", "--version"])
    import_module("ftc.__main__").main()
    assert capsys.readouterr().out == f"ftc {ftc.__version__}\n"


@pytest.mark.slow
def test_processes_of_a_command_are_started_by_its_own_line(tmp_path):
    quick = ("logger=csv", "source.max_epochs=1", "trainer.max_epochs=1", "figures=[]", "run_dir=run")
    result = run_fresh("__main__", tmp_path, "train", "trainer=ddp_cpu", *quick)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "results.json").is_file()
