"""A callback that keeps the outputs of the latest evaluation, for ``predictions.safetensors``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

FIELDS = ("logits", "features", "target", "id")


class PredictionRecorder(Callback):
    """Keeps the outputs of each evaluation loader's latest pass, on the CPU, in the order of sample ids.

    Args:
        loaders: a name for each validation loader, in order; test outputs are named ``test``.

    Attributes:
        latest: outputs of all ranks, by loader name: ``logits`` (N, C) and ``features`` (N, D), float32,
            ``target`` (N,) and ``id`` (N,), int64.
    """

    def __init__(self, loaders: Sequence[str]) -> None:
        self.loaders = tuple(loaders)
        self.latest: dict[str, dict[str, Tensor]] = {}
        self._batches: dict[str, list[dict[str, Tensor]]] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._keep(self.loaders[dataloader_idx], outputs)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._keep("test", outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # What a loader gave before is of other weights, where it gives nothing now.
        self.latest = {name: kept for name, kept in self.latest.items() if name not in self.loaders}
        self._conclude(trainer)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._conclude(trainer)

    def _keep(self, name: str, outputs: dict[str, Tensor]) -> None:
        batch = {field: outputs[field].detach().cpu() for field in FIELDS}
        self._batches.setdefault(name, []).append(batch)

    def _conclude(self, trainer: Trainer) -> None:
        for name, batches in self._batches.items():
            joined = {field: torch.cat([batch[field] for batch in batches]) for field in FIELDS}
            if trainer.world_size > 1:
                shards: list[Any] = [None] * trainer.world_size
                torch.distributed.all_gather_object(shards, joined)
                joined = {field: torch.cat([shard[field] for shard in shards]) for field in FIELDS}
            order = joined["id"].argsort()
            self.latest[name] = {field: value[order] for field, value in joined.items()}
        self._batches = {}
