"""Nothing in a training step waits for the device."""

from __future__ import annotations

from functools import partial

import torch
from lightning.pytorch import Trainer
from torch.utils._python_dispatch import TorchDispatchMode

from ftc import CalibrationCallback, FineTuneModule, PartitionedDataModule
from ftc.callbacks import Checkpointing, SeedSteps, StopWhenDiverged
from ftc.data import Loading, Preprocessing
from ftc.finetune import build_optimizer, build_scheduler
from ftc.models import create_classifier

KWARGS = {"in_chans": 1, "pretrained_cfg_overlay": {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5]}}


class Waits(TorchDispatchMode):
    """Counts what reads a number off a tensor, for which a host waits until its device has got there."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.count += 1
        return function(*args, **(kwargs or {}))


def fitted(reader, partition, folder, steps: int, accelerator: str = "cpu") -> None:
    """An epoch of the whole training machinery, without augmentation, which runs where images are read."""
    classifier = create_classifier("test_resnet", 6, kwargs=KWARGS)
    data = PartitionedDataModule(
        reader,
        partition,
        Preprocessing(classifier.data_config),
        loading=Loading(batch_size=4, iterations_per_epoch=steps),
    )
    module = FineTuneModule(classifier, partial(build_optimizer, name="sgd", lr=0.01), build_scheduler)
    trainer = Trainer(
        callbacks=[
            StopWhenDiverged(),
            SeedSteps(0),
            Checkpointing(folder / "last.ckpt"),
            CalibrationCallback(partition, head="classifier.head"),
        ],
        accelerator=accelerator,
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)


def test_steps_read_no_numbers_off_tensors(reader, partition, tmp_path):
    counts = []
    for steps in (10, 40):
        with Waits() as waits:
            fitted(reader, partition, tmp_path / str(steps), steps)
        counts.append(waits.count)
    # What an epoch ends with reads some; thirty more steps, fewer than fifty in all, read none.
    assert counts[1] == counts[0] > 0
