"""The page's size and the time it opens in; ``make bench ARGS="-k page"`` prints both.

The baseline of the size is a NumPy file of the same margins and columns; that of the time is the same browser
on an empty page with a script.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from ftc import ClassPartition
from ftc.runs.page import page_images, write_page
from tests.pages import chromium, epoch_rows, finished_run

pytestmark = pytest.mark.slow

TURNS = 7
EMPTY = """<!doctype html><title>empty</title>
<script>document.documentElement.dataset.ready = performance.now()</script>"""


def partition(classes: int) -> ClassPartition:
    return ClassPartition(classes, seen=range(classes // 2), absent=range(classes // 2, classes))


def opened(browser: Any, path: Path) -> float:
    """Milliseconds from the start of the navigation until the script is done, the median of several."""
    times = []
    for _ in range(TURNS):
        browser.get(path.as_uri())
        times.append(float(browser.execute_script("return document.documentElement.dataset.ready")))
    return statistics.median(times)


def test_size_of_a_run_of_5000_images(tmp_path):
    run = finished_run(tmp_path / "run", partition(200), 5_000, epochs=epoch_rows(20))
    size = write_page(tmp_path / "page.html", [run], {}).stat().st_size
    images = page_images(run)
    assert images is not None
    arrays = {f"{m.name}_{f}": getattr(m, f) for m in images.models for f in ("margin", "fixed", "absent")}
    np.savez_compressed(tmp_path / "arrays.npz", target=images.target, **arrays)
    bare = (tmp_path / "arrays.npz").stat().st_size
    print(
        f"\npage of 5,000 images, 4 models: {size / 1e6:.2f} MB; compressed arrays alone {bare / 1e6:.2f} MB"
    )
    assert size < 1_500_000


@pytest.mark.browser
def test_page_of_50000_images_opens_within_a_second(tmp_path):
    run = finished_run(tmp_path / "run", partition(1_000), 50_000, epochs=epoch_rows(20))
    page = write_page(tmp_path / "page.html", [run], {})
    (tmp_path / "empty.html").write_text(EMPTY)
    with chromium(tmp_path) as browser:
        empty, ours = (opened(browser, path) for path in (tmp_path / "empty.html", page))
        moved = browser.execute_script(
            "const slider = document.getElementById('gamma'); const begun = performance.now();"
            "for (let k = 1; k <= 20; k++) { state.gamma = k / 10; update(); }"
            "return (performance.now() - begun) / 20;"
        )
    table = Table(title="50,000 images, 1,000 classes, 4 models")
    for heading in ("", "milliseconds"):
        table.add_column(heading)
    table.add_row("empty page", f"{empty:.0f}")
    table.add_row(f"page of {page.stat().st_size / 1e6:.1f} MB, ready (goal: 1,000)", f"{ours:.0f}")
    table.add_row("a move of γ", f"{moved:.1f}")
    Console(width=100).print(table)
    # Other work on the machine may take a part of the goal.
    assert ours < 2_000
