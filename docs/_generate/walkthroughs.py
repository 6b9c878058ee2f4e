"""Write the walkthroughs' notebooks anew from their scripts, executed.

``python -m docs._generate.walkthroughs FOLDER [NAME …]``; they work in FOLDER/NAME, which keeps archives.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

SCRIPTS = sorted((Path(__file__).parents[1] / "walkthroughs").glob("*.py"))


def execute(script: Path, folder: Path) -> None:
    """Execute a script in a folder and write the notebook beside it, free of dates and versions."""
    folder.mkdir(parents=True, exist_ok=True)
    notebook = jupytext.read(script)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(
        notebook, timeout=None, record_timing=False, coalesce_streams=True, resources=place
    ).execute()
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        for output in cell.get("outputs", []):
            if "image/png" in (data := output.get("data", {})):
                data.pop("image/jpeg", None)  # a picture is stored once
                data["image/png"] = smaller(data["image/png"])
    notebook.metadata.pop("language_info", None)  # the interpreter's version
    nbformat.write(notebook, script.with_suffix(".ipynb"))


def smaller(png: str) -> str:
    """The same picture, as base64, in 128 colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(128)
    packed = io.BytesIO()
    picture.save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


if __name__ == "__main__":
    os.environ["PYTHONWARNINGS"] = "ignore"  # tqdm's, of widgets that are not there
    os.environ["OMP_NUM_THREADS"] = "1"  # or numbers depend on how many cores there are
    # Kernels start in their folders, where a relative path would mean another place.
    if "ARCHIVES" in os.environ:
        os.environ["ARCHIVES"] = str(Path(os.environ["ARCHIVES"]).resolve())
    root, *names = sys.argv[1:]
    for script in SCRIPTS:
        if not names or script.stem in names:
            execute(script, Path(root).resolve() / script.stem)
