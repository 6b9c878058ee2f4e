"""Results of stages are kept for a run that goes on, and computed once."""

from __future__ import annotations

import pytest
import torch

from ftc import ClassPartition
from ftc.config.commands import TrainConfig
from ftc.partition import PartitionManifest
from ftc.reporting.tables import console
from ftc.runs.folder import RunFolder
from ftc.runs.stages import Stages
from tests.conftest import composed

IDENTITY = {"content": {"seed": 1}, "versions": {}, "samples": {}}


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    manifest = PartitionManifest.of(ClassPartition(3, [0, 1], [2]), ("a", "b", "c"))
    folder.start(composed(TrainConfig, "train"), IDENTITY, manifest)
    return folder


def test_a_finished_stage_is_not_computed_again(folder):
    computed = []

    def compute() -> dict:
        computed.append(1)
        return {"x": torch.arange(3), "text": "y"}

    stages = Stages(folder, console())
    first = stages.once("test", compute)
    again = Stages(folder, console())
    again.go_on()
    second = again.once("test", compute)
    assert computed == [1]
    assert torch.equal(first["x"], second["x"]) and second["text"] == "y"
    assert again.timing == stages.timing


def test_a_run_that_does_not_go_on_computes_anew(folder):
    computed = []
    for _ in range(2):
        Stages(folder, console()).once("test", lambda: computed.append(1) or {})
    assert computed == [1, 1]


def test_a_stage_that_fails_leaves_no_result(folder):
    def fail() -> dict:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        Stages(folder, console()).once("test", fail)
    assert folder.finished_stages() == set()


def test_a_folder_begins_with_configuration_and_manifest(folder):
    assert folder.begun() == IDENTITY
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml", "partition.json", "stages"]
