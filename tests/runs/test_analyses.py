"""A run's analyses are those that its folder gives."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from ftc.functional import update_cosines
from ftc.models import load_tensors
from ftc.runs.finished import FinishedRun


def from_folder(run: FinishedRun):
    """The analyses as of an older record, which has none."""
    return evolve(run, record=run.record.model_copy(update={"analyses": None})).analyses()


def test_a_folder_gives_what_its_run_found(own_run):
    run = FinishedRun.read(own_run / "run")
    found = run.record.analyses
    assert found is not None and run.analyses() is found
    assert from_folder(run) == found
    evaluated = run.record.model_copy(update={"analyses": None, "checkpoint": "a" * 64})
    assert evolve(run, record=evaluated).analyses() is None
    assert found.class_shift.names == ["ant", "bée", "cat", "dog"]
    assert set(found.cka) == {"all", "seen", "absent"}
    updates = found.head_updates
    assert updates is not None
    assert (updates.names, updates.num_seen) == (["ant", "bée", "cat", "dog"], 2)
    rows = [
        load_tensors(run.folder / f"{name}.safetensors")["fc.weight"] for name in ("source", "fine_tuned")
    ]
    update = (rows[1] - rows[0]).double()
    assert updates.across == pytest.approx(update_cosines(*rows, [0, 1], [2, 3]).across)
    cosine = torch.nn.functional.cosine_similarity(update[0], update[3], dim=0)
    assert updates.matrix[0][3] == pytest.approx(float(cosine), abs=6e-4)
