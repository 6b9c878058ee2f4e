"""The splits of the digits, and the experiment that goes from MNIST to UCI digits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from ftc import InputError
from ftc.benchmarks.digits import CLASS_NAMES, mnist, uci_digits
from ftc.config.commands import TrainConfig
from ftc.data import ArrayReader
from ftc.runs.train import train
from tests.conftest import composed

SIZES = {mnist: (3000, 1000, 1000), uci_digits: (1074, 359, 364)}


def labelled(reader: ArrayReader) -> Counter[tuple[bytes, int]]:
    return Counter(
        (image.tobytes(), int(label)) for image, label in zip(reader.images, reader.targets, strict=True)
    )


@pytest.mark.parametrize("digits", SIZES)
def test_three_splits_of_every_class_are_disjoint_and_cover_all(digits: Callable[..., ArrayReader]):
    whole, parts = digits(), [digits(split) for split in ("train", "val", "test")]
    assert tuple(len(part.targets) for part in parts) == SIZES[digits]
    held = [labelled(part) for part in parts]
    assert sum(held, Counter()) == labelled(whole)
    assert not held[0].keys() & held[1].keys()
    assert not held[0].keys() & held[2].keys()
    assert not held[1].keys() & held[2].keys()
    counts = whole.targets.bincount()
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert (part.targets.bincount() - share * counts).abs().max() < 1
    assert {reader.class_names for reader in (whole, *parts)} == {CLASS_NAMES}


@pytest.mark.parametrize("digits", SIZES)
def test_classes_are_left_out_and_others_stay_as_they_are(digits: Callable[..., ArrayReader]):
    whole, two = digits("val"), digits("val", classes=[7, 2])
    rows = np.isin(whole.targets, [2, 7])
    assert np.array_equal(two.images, whole.images[rows])
    assert np.array_equal(two.targets, whole.targets[rows])
    assert two.class_names == CLASS_NAMES


@pytest.mark.parametrize("digits", SIZES)
def test_a_wrong_split_is_one_line(digits: Callable[..., ArrayReader]):
    with pytest.raises(InputError) as caught:
        digits("all")
    assert str(caught.value) == "split='all': choose from train, val, test, or null for all"


def test_mnist_is_the_source_and_uci_digits_the_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = (
        "source.max_epochs=1",
        "source.iterations_per_epoch=5",
        "trainer.max_epochs=1",
        "data.iterations_per_epoch=5",
        "calibration.use=[alg]",
        "logger=csv",
        "run_dir=run",
    )
    config = composed(TrainConfig, "train", "experiment=digits_reversed", *short)
    train(config)
    samples = json.loads((tmp_path / "run" / "partition.json").read_text())["samples"]
    counts = {split: entry["count"] for split, entry in samples.items()}
    assert counts == {"source": 5000, "train": 1074, "val": 359, "test": 364}
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert sum(results["num_samples"].values()) == 364
    assert results["stages"]["source"]["uses"] == ["source domain"]
    assert set(results["stages"]["calibrated"]) == {"alg", "oracle"}
