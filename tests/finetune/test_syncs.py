"""Nothing in a training step waits for the device."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from ftc import CalibrationCallback, FineTuneModule, PartitionedDataModule
from ftc.callbacks import Checkpointing, SeedSteps, StopWhenDiverged
from ftc.data import Loading, Preprocessing
from ftc.finetune import build_optimizer, build_scheduler
from ftc.models import create_classifier
from tests.finetune.test_methods import each_method

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


class WarnOfWaits(Callback):
    """Has torch warn where the host waits for the GPU, copies to it included, but for the first few steps."""

    def __init__(self, first: int) -> None:
        self.first = first

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.first:
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_epoch_end(self, trainer, pl_module):
        torch.cuda.set_sync_debug_mode("default")


def fitted(
    reader, partition, folder, steps: int, accelerator="cpu", method=None, callbacks=(), augmentation=()
) -> None:
    """An epoch of the whole training machinery; augmentation runs beside the model on a GPU alone."""
    classifier = create_classifier("test_resnet", 6, kwargs=KWARGS)
    data = PartitionedDataModule(
        reader,
        partition,
        Preprocessing(classifier.data_config, augmentation),
        loading=Loading(batch_size=4, iterations_per_epoch=steps),
    )
    module = FineTuneModule(
        classifier, partial(build_optimizer, name="sgd", lr=0.01), build_scheduler, method
    )
    trainer = Trainer(
        callbacks=[
            *callbacks,
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
    with module.prepared(data):
        trainer.fit(module, datamodule=data)


def test_steps_read_no_numbers_off_tensors(reader, partition, tmp_path):
    counts = []
    for steps in (10, 40):
        with Waits() as waits:
            fitted(reader, partition, tmp_path / str(steps), steps)
        counts.append(waits.count)
    # What an epoch ends with reads some; thirty more steps, fewer than fifty in all, read none.
    assert counts[1] == counts[0] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.gpu
@each_method
def test_steps_wait_for_no_gpu(reader, partition, tmp_path, make):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        augmentation = [v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.3, 0.3, 0.3)]
        fitted(reader, partition, tmp_path, 30, "gpu", make(), [WarnOfWaits(first=5)], augmentation)
    # As many as in an epoch of any length: what an epoch ends with is told from a step's by its number.
    waits = [f"{w.filename}:{w.lineno}" for w in caught if "synchronizing" in str(w.message)]
    assert {place: waits.count(place) for place in waits if waits.count(place) > 20} == {}
