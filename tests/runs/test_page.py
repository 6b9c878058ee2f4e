"""Pages of a real run: exact for every stage, with small images where they are asked for and still there."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ftc.functional import predicted_columns
from ftc.runs import page
from ftc.runs.finished import FinishedRun
from ftc.runs.page import page_images, write_page

# The run is that of tests/runs/test_deploy.py; what needs none is in tests/reporting/test_page.py.
pytestmark = pytest.mark.slow


def data_of(path: Path) -> dict[str, Any]:
    """The data of the first run of a page."""
    found = re.search(
        r'<script type="application/json"[^>]*>(.*?)</script>', path.read_text(encoding="utf-8")
    )
    assert found is not None
    return json.loads(found[1])


@pytest.fixture
def run(own_run, monkeypatch) -> FinishedRun:
    """The small finished run, from the folder that its paths are relative to."""
    monkeypatch.chdir(own_run)
    return FinishedRun.read(Path("run"))


def test_every_stage_has_the_recorded_accuracies(run):
    images = page_images(run)
    models = {model.name: model for model in images.models}
    record, groups = run.record, run.partition.groups()
    assert {"source", "fine_tuned", "interpolated"} <= set(models)
    for name, stage in record.rows():
        model = models.get(name, models["fine_tuned"])
        hit = np.where(stage.gamma > model.margin, model.absent, model.fixed) == images.target
        for metric, group in (("acc_all", None), ("acc_seen", "seen"), ("acc_absent", "absent")):
            rows = np.array([group in (None, groups[label]) for label in images.target])
            assert hit[rows].sum() / rows.sum() == stage.metrics[metric], (name, metric)
        for metric, value in model.unmoved.items():
            assert value == pytest.approx(stage.metrics[metric], abs=1e-15), (name, metric)


def test_page_names_classes_and_epochs_and_has_no_images_unless_asked(run, tmp_path):
    data = data_of(write_page(tmp_path / "page.html", [run], {"commit": "abc"}))
    assert data["classes"][:4] == ["ant", "bée", "cat", "dog"]
    assert [row["epoch"] for row in data["epochs"]] == [-1, 0]
    assert data["thumbnails"] == {}
    assert "data:image" not in (tmp_path / "page.html").read_text()


def test_small_images_are_of_samples_that_flip(run, tmp_path, monkeypatch):
    data = data_of(write_page(tmp_path / "page.html", [run], {}, thumbnails=True))
    images = page_images(run)
    logits = run.outputs().of("fine_tuned", "test", "logits")
    gammas = [0.0, *(s.gamma for n, s in run.record.stages.calibrated.items() if not n.startswith("interp"))]
    before, *others = predicted_columns(logits, run.partition, gammas)
    flipped = torch.stack([after != before for after in others]).any(0)
    assert {str(i) for i in images.ids[flipped.numpy()]} <= set(data["thumbnails"])
    assert data["thumbnails"]
    for uri in data["thumbnails"].values():
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as small:
            assert small.format == "JPEG" and max(small.size) <= page.THUMBNAIL_SIDE
    monkeypatch.setattr(page, "MOST_THUMBNAILS", 2)
    assert len(data_of(write_page(tmp_path / "few.html", [run], {}, thumbnails=True))["thumbnails"]) == 2
    monkeypatch.setattr(page, "THUMBNAIL_BYTES", 10)
    assert data_of(write_page(tmp_path / "none.html", [run], {}, thumbnails=True))["thumbnails"] == {}


def test_images_that_are_gone_are_said_and_the_page_is_written(own_run, tmp_path, monkeypatch):
    shutil.copytree(own_run / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    path = write_page(tmp_path / "page.html", [FinishedRun.read(Path("run"))], {}, thumbnails=True)
    assert "There are no small images, because the run&#x27;s own cannot be read" in path.read_text()
    assert data_of(path)["models"]
    assert data_of(path)["thumbnails"] == {}
