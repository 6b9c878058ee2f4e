"""The Lightning module that fine-tunes a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from timm.scheduler.scheduler import Scheduler
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from ftc.data import PartitionedDataModule
from ftc.data.loaders import Batch
from ftc.data.sampler import PADDING
from ftc.finetune.method import Method, Task, without_columns
from ftc.finetune.methods import Full
from ftc.models import Classifier


class FineTuneModule(LightningModule):
    """Trains a classifier by a method, and evaluates it.

    Evaluation steps return ``logits`` (N, C) and ``features`` (N, D), float32, and ``target`` (N,) and ``id``
    (N,), int64, without padding.

    Args:
        classifier: backbone and head.
        optimizer: function from parameters by group, see `Method.parameter_groups`, and their depths, as
            ``layers``, to an optimiser; such as `build_optimizer` with its other arguments.
        scheduler: function from the optimiser and the iterations of the whole training to a timm schedule;
            None for a constant rate.
        method: the method of fine-tuning; by default `Full`.
        hidden: head columns that the training must not know; the method gets −inf for their logits.

    Attributes:
        num_trainable: number of values that the latest training trained.
        moved_at_end: whether the method changed the model after the latest training's last step.
    """

    def __init__(
        self,
        classifier: Classifier,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[[Optimizer, int], Scheduler] | None = None,
        method: Method | None = None,
        hidden: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.method = method or Full()
        self.hidden: Tensor
        self.register_buffer("hidden", torch.tensor(list(hidden), dtype=torch.int64), persistent=False)
        # The mean over an epoch, as Lightning would log it, but also kept in checkpoints within an epoch.
        self.mean_loss = MeanMetric(nan_strategy="disable")

    @contextmanager
    def prepared(self, data: PartitionedDataModule) -> Iterator[None]:
        """Prepare the classifier by the method inside the block, and make it a plain one again at its end.

        Args:
            data: the images that the block trains on.
        """
        self.classifier.reshard()
        self.method.prepare(self.classifier, Task(data.partition, data.trained_counts))
        groups = self.method.parameter_groups(self.classifier)
        self.num_trainable = sum(p.numel() for group in groups.values() for p in group)
        yield
        self.classifier.reshard()
        self.moved_at_end = self.method.finish(self.classifier)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C), float32."""
        return self.classifier(images)

    def on_train_start(self) -> None:
        self._steps = int(self.trainer.estimated_stepping_batches)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.method.begin_step(self.classifier, self.global_step, self._steps)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = self.method.mixed(batch)
        features, logits = self.classifier.features_and_logits(batch["image"])
        if len(self.hidden):
            logits = without_columns(logits, self.hidden)
        loss = self.method.loss({"logits": logits, "features": features}, batch)
        # Once for each image: a number as weight would be copied to the device, and be waited for.
        self.mean_loss.update(loss.detach().expand(len(batch["target"])))
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.method.adjust_gradients(self.classifier)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        step = self.global_step + 1
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.method.end_step(self.classifier, optimizer, step, self._steps)

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.mean_loss.compute())
        self.mean_loss.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["mean_loss"] = dict(self.mean_loss.metric_state)
        checkpoint["method"] = self.method.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.mean_loss.update(0.0)
        for name, value in checkpoint["mean_loss"].items():
            setattr(self.mean_loss, name, value.to(self.device))
        self.method.load_state_dict(checkpoint["method"])

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        features, logits = self.classifier.features_and_logits(batch["image"])
        outputs = {"logits": logits, "features": features, "target": batch["target"], "id": batch["id"]}
        if self.classifier.is_sharded:
            real = batch["id"] != PADDING
            outputs = {name: value[real] for name, value in outputs.items()}
        return outputs

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            self.classifier.shard(init_device_mesh(self.device.type, (self.trainer.world_size,)))

    def on_validation_start(self) -> None:
        self._share_buffers()

    def on_test_start(self) -> None:
        self._share_buffers()

    def _share_buffers(self) -> None:
        """Give all processes the batch statistics of rank 0, as DDP does."""
        if self.classifier.is_sharded:
            for buffer in self.classifier.buffers():
                torch.distributed.broadcast(buffer, 0)

    def configure_optimizers(self) -> Any:
        classifier, layers = self.classifier, self.classifier.layers()
        named = classifier.backbone.named_parameters()
        depths = {parameter: layers[name] for name, parameter in named if name in layers}
        depths |= dict.fromkeys(classifier.head.parameters(), max(layers.values()))
        optimizer = self.optimizer_factory(self.method.parameter_groups(classifier), layers=depths)
        if self.scheduler_factory is None:
            return optimizer
        scheduler = self.scheduler_factory(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step_update(num_updates=self.global_step)
