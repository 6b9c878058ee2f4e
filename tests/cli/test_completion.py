"""Completion, asked as a shell asks: in a process of the shell, which has read our script."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from ftc.benchmarks.catalogue import BENCHMARKS
from ftc.cli.completion import complete, script
from ftc.cli.front import COMMANDS
from tests.cli.test_launch import EXPERIMENTS

# Bash leaves us what follows the last "=", zsh the whole word.
BREAKS = {"bash": r"[^\s=]+|=", "zsh": r"\S+"}


def replies(shell: str, *lines: str) -> list[list[str]]:
    """What the shell's function answers to each line with the cursor at its end, word by word."""
    asked = []
    for typed in lines:
        words = [*re.findall(BREAKS[shell], typed), *([""] if typed[-1] in " =" else [])]
        part = words[-1]
        asked.append(
            f"COMP_LINE={shlex.quote(typed)} COMP_POINT={len(typed)}\n"
            f"""_ftc_complete ftc {shlex.quote(part)}; printf '%s|' "${{COMPREPLY[@]}}"; echo"""
        )
    code = "\n".join([f'ftc() {{ {sys.executable} -m ftc "$@"; }}', script(shell), *asked])
    # Neither reads its user's files.
    quiet = {"bash": "--norc", "zsh": "-f"}[shell]
    done = subprocess.run([shell, quiet, "-c", code], text=True, capture_output=True, check=True)
    assert done.stderr == ""
    return [[reply for reply in row.split("|") if reply] for row in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_keys_and_choices(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    commands, one, choices, keys, nothing = replies(
        shell, "ftc ", "ftc tra", "ftc train seed=1 experiment=dig", "ftc deploy calibr", "ftc nothing x"
    )
    before = "" if shell == "bash" else "experiment="
    assert commands == [f"{command} " for command in COMMANDS]
    assert one == ["train "]
    assert choices == [f"{before}{name} " for name in EXPERIMENTS if name.startswith("dig")]
    assert keys == ["calibrator="]
    assert nothing == []


@pytest.mark.parametrize(
    ("typed", "candidates"),
    [
        ("ftc d", ["deploy", "doctor"]),
        ("  .venv/bin/ftc   pre", ["prepare", "predict"]),
        ("ftc", []),
        ("ftc --v", ["--version"]),
        ("ftc --completion ", ["bash", "zsh"]),
        ("ftc --completion fish ", []),
        ("ftc doctor -", ["-h", "--help", "--json", "--version"]),
        ("ftc doctor ", []),
        ("ftc prepare ", list(BENCHMARKS)),
        ("ftc prepare emoji ", []),
        ("ftc prepare emoji --l", ["--lists"]),
        ("ftc prepare --to ", []),
        ("ftc prepare --to there em", ["emoji"]),
        ("ftc unknown ", []),
    ],
)
def test_candidates_of_a_line(capsys, typed, candidates):
    complete(typed, COMMANDS)
    assert sorted(capsys.readouterr().out.split()) == sorted(candidates)
