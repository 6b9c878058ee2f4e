"""Bars are for terminals, not for whatever wants colours: notebooks' kernels and CI set FORCE_COLOR."""

from __future__ import annotations

from rich.console import Console

from ftc.callbacks.progress import EpochLines, progress
from ftc.data.store import in_parallel


def test_no_bar_outside_terminals(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert Console().is_terminal
    assert isinstance(progress("fine-tuning", True, Console()), EpochLines)
    assert list(in_parallel("Doubling", lambda x: 2 * x, [1, 2], 0)) == [2, 4]
    assert capsys.readouterr() == ("", "")
