"""The toy example: its points, and what one run of it shows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftc.benchmarks.toy import CLASS_NAMES, REACH, points
from ftc.data import ArrayReader
from ftc.export.formats import FORMATS
from ftc.models import create_classifier
from ftc.runs.finished import FinishedRun
from ftc.runs.planes import plane_figures
from tests.commands import run_module

# Half the distance between two values of a pixel, in the plane.
HALF = REACH / 255


def coordinates(reader: ArrayReader) -> np.ndarray:
    return (reader.images[:, 0] / 127.5 - 1) * REACH


@given(seed=st.integers(0, 2**32), per_class=st.integers(1, 20), spread=st.floats(0, 2))
def test_points_depend_on_nothing_but_their_arguments(seed, per_class, spread):
    first, again = (points(seed, per_class, spread) for _ in range(2))
    assert np.array_equal(first.images, again.images)
    assert first.images.shape == (4 * per_class, 1, 2)
    assert first.targets.bincount().tolist() == [per_class] * 4
    assert first.class_names == CLASS_NAMES
    assert first.decode(0).size == (2, 1)


@given(
    seed=st.integers(0, 1000),
    turn=st.floats(-180, 180),
    x=st.floats(-0.5, 0.5),
    y=st.floats(-0.5, 0.5),
)
def test_a_domain_is_the_same_points_turned_and_then_shifted(seed, turn, x, y):
    own = coordinates(points(seed, 10, 0.2))
    moved = coordinates(points(seed, 10, 0.2, turn, (x, y)))
    plane = (own @ (1, 1j)) * np.exp(1j * math.radians(turn)) + complex(x, y)
    assert np.abs(moved @ (1, 1j) - plane).max() <= 2 * math.sqrt(2) * HALF + 1e-9


def test_middles_are_the_quadrants_and_what_is_out_of_reach_lies_at_the_edge():
    exact = coordinates(points(0, 1, 0.0))
    assert np.abs(exact - [(1, 1), (-1, 1), (-1, -1), (1, -1)]).max() <= HALF
    assert np.abs(coordinates(points(0, 1, 0.0, shift=(9, -9))) - (REACH, -REACH)).max() == 0


@given(classes=st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
def test_classes_are_left_out_and_others_stay_as_they_are(classes):
    whole, some = points(0, 5, 0.5), points(0, 5, 0.5, classes=classes)
    for c in classes:
        assert np.array_equal(some.images[some.targets == c], whole.images[whole.targets == c])
    assert sorted(some.targets.unique().tolist()) == sorted(classes)
    assert some.class_names == CLASS_NAMES


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("toy")
    done = run_module("train", home, "experiment=toy", "logger=null", "run_dir=run")
    assert done.returncode == 0, done.stderr
    assert "nearly copies" not in done.stdout
    return home / "run"


def test_the_papers_claims_on_a_plane(toy):
    record = json.loads((toy / "results.json").read_text())
    source, fine_tuned = record["stages"]["source"], record["stages"]["fine_tuned"]
    # Good where it comes from, worse in the target domain.
    assert record["own_domain"]["acc_all"] > 0.9
    assert source["acc_all"] < 0.85
    # Fine-tuning helps seen classes and takes from absent ones.
    assert fine_tuned["acc_seen"] > source["acc_seen"] + 0.1
    assert fine_tuned["acc_absent"] < source["acc_absent"] - 0.1
    # Their order among themselves is as good as before, by the head and by the features.
    assert fine_tuned["acc_absent_within"] > source["acc_absent_within"] - 0.01
    assert fine_tuned["ncm_acc_absent_within"] > 0.9
    # One scalar brings them back, and all classes are better than with the source model.
    for name in ("alg", "interpolated", "oracle"):
        stage = record["stages"]["calibrated"][name]
        assert stage["gamma"] > 0
        assert stage["acc_absent"] > source["acc_absent"]
        assert stage["acc_all"] > source["acc_all"] + 0.1


def test_the_run_draws_its_planes(toy):
    assert (toy / "figures" / "feature_planes.png").is_file()
    figure = plane_figures(FinishedRun.read(toy))["feature_planes"]
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.partition("\n")[0] for title in titles[:2]] == ["source", "fine-tuned, γ = 0"]
    assert titles[3].startswith("interpolated, γ = ")
    assert titles[4:] == [""] * 4
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == ["input", "features"]


@pytest.mark.slow
def test_images_of_more_values_have_no_plane_of_their_own(tmp_path):
    short = ("model.input_size=[1,2,2]", "source.max_epochs=1", "trainer.max_epochs=1", "logger=null")
    done = run_module("train", tmp_path, "experiment=toy", *short, "calibration.use=[alg]", "run_dir=run")
    assert done.returncode == 0, done.stderr
    figure = plane_figures(FinishedRun.read(tmp_path / "run"))["feature_planes"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["features", "", ""]


def test_timm_alone_does_not_know_the_network():
    classifier = create_classifier("small_mlp", 4)
    assert FORMATS["timm"].obstacle(classifier) == "small_mlp is no model of timm's own"
    assert FORMATS["timm"].obstacle(create_classifier("test_resnet", 4)) is None
    assert FORMATS["onnx"].obstacle(classifier) is None
