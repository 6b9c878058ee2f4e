"""The walkthroughs: notebooks show what their scripts say, and scripts run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "walkthroughs"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def notebook(script: Path) -> dict:
    return json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebook_and_script_have_the_same_cells(script):
    jupytext = pytest.importorskip("jupytext")
    expected = [(cell.cell_type, cell.source) for cell in jupytext.read(script).cells]
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook(script)["cells"]]
    assert found == expected, "run: make walkthroughs"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_outputs_are_stored_small_and_clean(script):
    assert script.with_suffix(".ipynb").stat().st_size < 300_000
    cells = [cell for cell in notebook(script)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in outputs)
    said = "".join("".join(output.get("text", [])) for output in outputs)
    assert re.search(r"^\+ oracle ", said, re.M)
    assert not re.search(r"(^|[\s'=])/\w", said)  # no absolute path


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_links_lead_somewhere(script):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", script.read_text(encoding="utf-8"))
    assert links and all((FOLDER / link).is_file() for link in links)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs_in_an_empty_folder(script, tmp_path):
    pytest.importorskip("resvg_py")
    if "ARCHIVES" not in os.environ and not fetched(tmp_path):
        pytest.skip("npm gets no archives here, and ARCHIVES names no folder of them")
    done = subprocess.run(
        [sys.executable, script, tmp_path], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split("  ")[0]: line.split()[-5:] for line in done.stdout.splitlines() if "  " in line}
    source, tuned = (
        rows[name] for name in rows if name in ("source model", "CLIP, names as head", "fine-tuned")
    )
    seen, absent = 1, 2
    assert float(tuned[seen]) > float(source[seen]) + 20
    assert float(tuned[absent]) < float(source[absent]) / 1.5
    assert float(rows["+ interpolated"][absent]) > 1.5 * float(tuned[absent])


def fetched(folder: Path) -> bool:
    """Whether npm can get a package."""
    npm = shutil.which("npm")
    if npm is None:
        return False
    try:
        done = subprocess.run(
            [npm, "pack", "--silent", "@iconify-json/streamline-emojis@1.2.4"],
            cwd=folder,
            capture_output=True,
            check=False,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
