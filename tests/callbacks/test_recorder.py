"""The recorder keeps what the latest evaluation gave, and nothing older."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from ftc.callbacks import PredictionRecorder


def outputs(ids):
    size = len(ids)
    values = {"logits": torch.rand(size, 3), "features": torch.rand(size, 2), "target": torch.arange(size)}
    return {**values, "id": torch.tensor(ids)}


def test_outputs_are_kept_by_loader_in_the_order_of_ids():
    recorder, trainer = PredictionRecorder(("calibration", "gallery", "val")), SimpleNamespace(world_size=1)
    for loader in range(3):
        for ids in ([4, 2], [3]):
            recorder.on_validation_batch_end(trainer, None, outputs(ids), None, 0, loader)
    recorder.on_validation_epoch_end(trainer, None)
    recorder.on_test_batch_end(trainer, None, outputs([1, 0]), None, 0)
    recorder.on_test_epoch_end(trainer, None)
    assert {name: kept["id"].tolist() for name, kept in recorder.latest.items()} == {
        **{name: [2, 3, 4] for name in ("calibration", "gallery", "val")},
        "test": [0, 1],
    }
    # No gallery this time: the older one is of other weights.
    for loader in (0, 2):
        recorder.on_validation_batch_end(trainer, None, outputs([5]), None, 0, loader)
    recorder.on_validation_epoch_end(trainer, None)
    assert {name: kept["id"].tolist() for name, kept in recorder.latest.items()} == {
        "calibration": [5],
        "val": [5],
        "test": [0, 1],
    }
