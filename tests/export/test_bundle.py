"""The artefact is made from a folder alone, and is the model that was evaluated."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from ftc import ClassPartition, InputError
from ftc.calibrators import FixedGamma, Interpolated, SymmetricMisroute
from ftc.config.deployment import FormatName
from ftc.export.bundle import CALIBRATED_WEIGHTS, FINE_TUNED_WEIGHTS, SOURCE_WEIGHTS, bundle, write_bundle
from ftc.export.formats import FORMATS
from ftc.models import create_classifier, load_metadata, save_weights
from ftc.results import RunRecord

PARTITION = ClassPartition(6, seen=[0, 2, 4], absent=[1, 5])
KWARGS = {"in_chans": 1}
METADATA = {"model": {"kind": "timm", "name": "test_resnet"}, "head": "fc", "class_names": list("abcdef")}


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate((SOURCE_WEIGHTS, FINE_TUNED_WEIGHTS)):
        torch.manual_seed(seed)
        classifier = create_classifier("test_resnet", 6, kwargs=KWARGS)
        save_weights(tmp_path / name, classifier.timm_state_dict(), METADATA if seed else None)
    return tmp_path


def record(details: dict | None = None) -> RunRecord:
    row = {"gamma": 1.5, "uses": ["x"], "acc_all": 0.5}
    return RunRecord(
        experiment="toy",
        seed=0,
        partition=PARTITION.record(),
        versions={},
        timing={},
        num_samples={},
        deployed="mine",
        stages={
            "source": None,
            "fine_tuned": {**row, "gamma": 0.0},
            "calibrated": {"mine": {**row, "lane": "seen_only", "details": details or {}}},
        },
    )


def test_gamma_is_in_the_bias_of_absent_classes_and_nowhere_else(folder):
    weights, metadata = bundle(folder, record(), "mine", FixedGamma(1.5))
    plain = load_file(folder / FINE_TUNED_WEIGHTS)
    assert weights.keys() == plain.keys()
    added = weights.pop("fc.bias") - plain.pop("fc.bias")
    torch.testing.assert_close(added, torch.tensor([0.0, 1.5, 0.0, 0.0, 0.0, 1.5]))
    assert all(torch.equal(weights[name], plain[name]) for name in plain)
    assert metadata["class_names"] == list("abcdef")
    assert (metadata["calibrator"], metadata["gamma"]) == ("mine", 1.5)
    assert metadata["partition"]["absent"] == [1, 5]
    assert "alpha" not in metadata


def test_a_calibrator_for_other_weights_gets_those(folder):
    calibrator = Interpolated(SymmetricMisroute())
    path = write_bundle(folder, record({"alpha": 0.25}), "mine", calibrator)
    assert path == folder / CALIBRATED_WEIGHTS
    source, fine_tuned = load_file(folder / SOURCE_WEIGHTS), load_file(folder / FINE_TUNED_WEIGHTS)
    found = load_file(path)
    expected = 0.75 * source["fc.weight"] + 0.25 * fine_tuned["fc.weight"]
    torch.testing.assert_close(found["fc.weight"], expected)
    assert load_metadata(path)["alpha"] == 0.25


def test_the_artefact_predicts_what_the_calibrated_model_does(folder):
    weights, _ = bundle(folder, record(), "mine", FixedGamma(1.5))
    plain, calibrated = (create_classifier("test_resnet", 6, kwargs=KWARGS).eval() for _ in range(2))
    plain.load_timm_state_dict(load_file(folder / FINE_TUNED_WEIGHTS))
    calibrated.load_timm_state_dict(weights)
    images = torch.randn(8, 1, 32, 32)
    with torch.no_grad():
        logits = plain(images)
        logits[:, list(PARTITION.absent)] += 1.5
        torch.testing.assert_close(calibrated(images), logits)


def test_a_folder_without_weights_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"fine_tuned\.safetensors: no such file"):
        bundle(tmp_path, record(), "mine", FixedGamma(1.5))


def test_every_format_can_be_asked_for():
    assert set(get_args(FormatName)) == set(FORMATS)
