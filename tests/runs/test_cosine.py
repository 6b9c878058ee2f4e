"""A cosine head through training, calibration and deployment; timm has none, and the command says so."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from ftc.functional import update_cosines
from ftc.models import load_tensors
from ftc.results import RunRecord
from tests.commands import run_module, run_train
from tests.interruption import TINY

pytestmark = pytest.mark.slow

COSINE = (*TINY, "model.head=cosine", "calibration.use=[interpolated,symmetric,pcv,alg]", "logger=null")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("cosine")
    done = run_train(home, *COSINE)
    assert done.returncode == 0, done.stderr
    return home


def test_pre_trained_linear_heads_are_no_cosine_heads(home):
    done = run_train(home, *COSINE, "data.readers.source=null", "model.pretrained=true")
    assert done.stderr.startswith(
        "ftc: error: model.head=cosine: pre-trained weights come with a linear head"
    )


def test_updates_of_its_rows_are_those_of_directions(home):
    record = RunRecord.read(home / "run")
    heads = [load_tensors(home / "run" / f"{name}.safetensors") for name in ("source", "fine_tuned")]
    rows = [h["fc.scale"] * h["fc.weight"] / h["fc.weight"].norm(dim=1, keepdim=True) for h in heads]
    found = update_cosines(*rows, record.partition.seen, record.partition.absent)
    assert record.analyses.head_updates.across == pytest.approx(found.across, abs=1e-5)


def test_formats_but_timm_have_it(home):
    refused = run_module("deploy", home, "run=run", "to=none")
    assert "formats=['timm']: timm has no cosine head; choose onnx, onnx_int8, torch_export" in refused.stderr
    done = run_module("deploy", home, "run=run", "to=deployed", "formats=[timm,torch_export]")
    assert done.returncode == 0, done.stderr
    assert "formats=timm is left out: timm has no cosine head" in done.stdout
    assert {path.name for path in (home / "deployed").iterdir()} == {"model.pt2", "README.md"}
    assert "ftc.predict" not in (home / "deployed" / "README.md").read_text()
    Image.new("L", (9, 9)).save(home / "one.png")
    refused = run_module("predict", home, "model=deployed", "images=one.png")
    assert "model=deployed: no model that is run here" in refused.stderr


def test_a_temperature_is_in_its_scale_and_labels_are_the_runs(home):
    done = run_module("deploy", home, "run=run", "to=onnx", "formats=[onnx]", "temperature=3")
    assert done.returncode == 0, done.stderr
    from ftc.benchmarks.digits import mnist

    reader = mnist("test")
    (home / "images").mkdir()
    for i in range(0, 1000, 50):
        reader.decode(i).save(home / "images" / f"{i:04d}.png")
    found = {}
    for model in ("onnx/model.onnx", "run"):
        done = run_module("predict", home, f"model={model}", "images=images", "to=out.csv", "overwrite=true")
        assert done.returncode == 0, done.stderr
        with (home / "out.csv").open() as file:
            found[model] = list(csv.DictReader(file))
    calibrated, plain = found.values()
    for row, other in zip(calibrated, plain, strict=True):
        assert row["label"] == other["label"]
        assert float(row["flips_at"]) == pytest.approx(float(other["flips_at"]), abs=1e-3)
        assert float(row["margin"]) == pytest.approx(float(other["margin"]) / 3, abs=1e-4)
    assert json.loads((home / "run" / "results.json").read_text())["deployed"]
