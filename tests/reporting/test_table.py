"""One table in all its forms."""

from __future__ import annotations

import pytest

from ftc.reporting.table import Cell, Grid, mean, mean_difference

GRID = Grid(
    "Scores",
    ("lr", "model", "Y/Y", "γ"),
    (
        (Cell("1e-3"), Cell("+ ALG_1"), Cell("84.1 ± 2.3", {"mean": 84.12, "n": 3}, best=True), Cell("–")),
        (Cell("1e-2"), Cell("+ oracle"), Cell("−1.0", {"mean": -1.0}, "points", bound=True), Cell("50 %")),
    ),
    labels=2,
    notes=("Percent.",),
)


def test_markdown():
    assert GRID.markdown().splitlines() == [
        "| lr | model | Y/Y | γ |",
        "|---|---|--:|--:|",
        "| 1e-3 | + ALG_1 | **84.1 ± 2.3** | – |",
        "| 1e-2 | + oracle | −1.0 | 50 % |",
    ]


def test_latex():
    lines = GRID.latex().splitlines()
    assert r"\caption{Scores. Percent.}" in lines
    assert r"\begin{tabular}{llrr}" in lines
    assert r"lr & model & Y/Y & $\gamma$ \\" in lines
    assert r"1e-3 & + ALG\_1 & \textbf{84.1 $\pm$ 2.3} & -- \\" in lines
    assert r"1e-2 & + oracle & $-$1.0 & 50 \% \\" in lines
    assert sum("toprule" in line or "midrule" in line or "bottomrule" in line for line in lines) == 3


def test_tidy_has_a_record_for_each_cell_with_numbers():
    first, second = GRID.tidy()
    assert first == {
        "table": "Scores",
        "lr": "1e-3",
        "model": "+ ALG_1",
        "column": "Y/Y",
        "unit": "percent",
        "mean": 84.12,
        "n": 3,
        "best": True,
        "bound": False,
    }
    assert (second["unit"], second["bound"]) == ("points", True)


def test_means_keep_what_they_round():
    assert mean([80.04, 80.05]) == Cell("80.0", {"mean": pytest.approx(80.045), "n": 2})
    cell = mean_difference([-1.0, -3.0])
    assert (cell.text, cell.unit) == ("−2.0 ± 1.0", "points")
    assert cell.numbers == {"mean": -2.0, "standard_error": pytest.approx(1.0), "n": 2}
