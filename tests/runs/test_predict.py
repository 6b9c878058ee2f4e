"""The command that predicts: every kind of images and files, interrupted and gone on with."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ftc import ClassPartition
from ftc.export.facts import Facts
from ftc.export.formats import FORMATS, Deployment
from ftc.export.images import ImageList
from ftc.export.rows import CHUNK
from ftc.models import create_classifier
from tests.commands import _stranger, run_module, start

SIZE = 8


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A deployed model of two classes, and more images than a chunk has."""
    home = tmp_path_factory.mktemp("predict")
    overlay = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0}
    torch.manual_seed(0)
    classifier = create_classifier("test_resnet", 2, kwargs={"pretrained_cfg_overlay": overlay}).eval()
    facts = Facts(
        class_names=("seen", "absent"),
        partition=ClassPartition(2, [0], [1]).record(),
        calibrator="alg",
        gamma=0.5,
        preprocessing=classifier.data_config,
    )
    (home / "deployed").mkdir()
    FORMATS["onnx"].write(Deployment(classifier, facts), home / "deployed")
    generator = np.random.default_rng(0)
    folder = home / "photos" / "deep"
    folder.mkdir(parents=True)
    for i in range(CHUNK + 100):
        pixels = generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:05d}.png", compress_level=0)
    (home / "photos" / "notes.md").write_text("no image")
    return home


def predict(home: Path, *arguments: str):
    return run_module("predict", home, "model=deployed", *arguments)


@pytest.fixture(scope="module")
def rows(home) -> list[dict]:
    done = predict(home, "images=photos", "to=all.csv", "top_k=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Predictions: all.csv ({CHUNK + 100:,} images)\n"
    with (home / "all.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_image_has_a_row_in_order(home, rows):
    assert [row["file"] for row in rows] == [f"photos/deep/{i:05d}.png" for i in range(CHUNK + 100)]
    assert all(row["label"] in ("seen", "absent") and row["group"] == row["label"] for row in rows)
    assert all(float(row["probability"]) + float(row["probability_2"]) == pytest.approx(1) for row in rows)
    assert not [path.name for path in home.iterdir() if "parts" in path.name]


def test_every_kind_of_file_has_the_same_rows(home, rows):
    for name in ("all.jsonl", "all.parquet"):
        assert predict(home, "images=photos", f"to={name}", "top_k=2").returncode == 0
    lines = [json.loads(line) for line in (home / "all.jsonl").read_text().splitlines()]
    assert lines == pq.read_table(home / "all.parquet").to_pylist()
    as_text = [{k: "" if v is None else str(v) for k, v in line.items()} for line in lines]
    assert as_text == rows


def test_one_image_is_answered_on_standard_output(home, rows):
    done = predict(home, "images=photos/deep/00003.png", "top_k=2")
    assert list(csv.DictReader(io.StringIO(done.stdout))) == [rows[3]]


def test_patterns_lists_and_several(home):
    (home / "photos" / "list.txt").write_text("deep/00001.png 7\r\n\ndeep/00002.png\n")
    os.chdir(home)
    assert list(ImageList(["photos/deep/0000[12].png"])) == ["photos/deep/00001.png", "photos/deep/00002.png"]
    assert list(ImageList(["photos/list.txt", "photos/deep/00009.png"])) == [
        *("photos/deep/00001.png", "photos/deep/00002.png"),
        "photos/deep/00009.png",
    ]
    assert ImageList(["photos/**/*.png"]).count == CHUNK + 100
    done = predict(home, "images=[photos/list.txt,'photos/deep/0110*.png']", "top_k=1")
    assert [row["file"][-9:] for row in csv.DictReader(io.StringIO(done.stdout))] == [
        *("00001.png", "00002.png"),
        *(f"{i:05d}.png" for i in range(1100, 1110)),
    ]


def test_unreadable_images_are_rows_and_the_status_says_so(home, tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"broken")
    done = predict(home, f"images={tmp_path}", f"to={tmp_path}/out.jsonl")
    assert done.returncode == 2
    assert done.stderr == (
        f"ftc: error: images: 1 cannot be read ({tmp_path}/b.png: no image format that is known); the rows "
        f"of all others are in {tmp_path}/out.jsonl\n"
    )
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["error"] for row in found] == [None, "no image format that is known", None]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("images=gone",), "images=gone: no such file, folder or pattern; name images"),
        (("images=photos/*.bmp",), "images=photos/*.bmp: no such file, folder or pattern"),
        (("images=deployed",), "images=deployed: no image in this folder; it has 1 .onnx"),
        (("images=photos", "to=out.txt"), "to=out.txt: choose a file that ends in .csv, .jsonl, .parquet"),
        (("images=photos", "to=all.csv"), "to=all.csv: exists; choose another file, or set overwrite=true"),
        (("images=photos", "model=gone"), "model=gone: no such file or folder"),
        (("images=photos", "top_k=0"), "top_k=0: input should be greater than or equal to 1"),
        (("images=photos", "engine=ray"), "engine=ray: wants a file to collect its rows in"),
    ],
)
def test_wrong_input_is_one_line(home, rows, arguments, line):
    done = predict(home, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"ftc: error: {line}")


def test_a_killed_command_goes_on_and_gives_the_same_file(home, rows, tmp_path):
    arguments = ("model=deployed", "images=photos", "to=again.csv", "top_k=2", "batch_size=4")
    out, err = tmp_path / "out", tmp_path / "err"
    process = start("predict", home, arguments, _stranger(home, {}), out, err)
    parts, deadline = home / ".again.csv-parts", time.monotonic() + 60
    while not list(parts.glob("[0-9]*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (home / "again.csv").exists() and len(list(parts.glob("[0-9]*.jsonl"))) == 1
    done = run_module("predict", home, *arguments)
    assert done.returncode == 0, done.stderr
    assert f"Goes on after {CHUNK:,} images that are done" in done.stderr
    assert (home / "again.csv").read_bytes() == (home / "all.csv").read_bytes()
    assert not parts.exists()


def test_damaged_chunks_and_those_of_others_are_made_again(home, rows):
    parts = home / ".third.csv-parts"
    parts.mkdir()
    (parts / "identity.json").write_text('{"model": "another"}')
    (parts / "000000000.jsonl").write_text('{"rows": 0}\n')
    done = predict(home, "images=photos", "to=third.csv", "top_k=2")
    assert done.returncode == 0 and "Goes on" not in done.stderr
    assert (home / "third.csv").read_bytes() == (home / "all.csv").read_bytes()


def test_two_at_once_do_not_mix(home):
    from filelock import FileLock

    with FileLock(home / ".locked.csv.lock"):
        done = predict(home, "images=photos", "to=locked.csv")
    assert "to=locked.csv: another command is at work on it; wait for it" in done.stderr


@pytest.mark.slow
def test_ray_gives_the_same_rows(home, rows):
    pytest.importorskip("ray")
    done = predict(home, "images=photos", "to=ray.csv", "top_k=2", "engine=ray")
    assert done.returncode == 0, done.stderr
    assert (home / "ray.csv").read_bytes() == (home / "all.csv").read_bytes()
