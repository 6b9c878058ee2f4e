"""The seam of methods: a way to fine-tune a classifier, and what its training asks of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.optim import Optimizer
from torchvision.transforms import v2

from ftc.data.loaders import Batch
from ftc.models import Classifier, batch_norms
from ftc.partition import ClassPartition


@frozen(eq=False)
class Task:
    """What a training is to learn.

    Attributes:
        partition: seen, absent and other head columns.
        counts: target images that are trained on, by column: int64 (C,).
    """

    partition: ClassPartition
    counts: Tensor


class Method:
    """A way to fine-tune: what is trained, on which loss, and how the model becomes a plain one again.

    An object serves one training, and knows nothing of any other. Training calls `prepare` and
    `parameter_groups`; in every step `begin_step`, `mixed`, `loss`, `adjust_gradients` and `end_step`; and
    then `finish`. This class trains every weight on the cross-entropy over all head columns; subclasses
    override what they do differently.

    Args:
        label_smoothing: share of each label that is spread evenly over the columns that the loss knows.
        mixup: parameter of the Beta distribution of mixup (Zhang et al. 2018); 0 for none.
        cutmix: the same of CutMix (Yun et al. 2019); with both, each step draws one of the two.
        freeze_bn: whether batch norm keeps weights and running statistics, bit for bit.

    Attributes:
        title: the printed name.
        uses: the data that it trains on, in words.
        oracle: whether it trains on labels of absent classes: a bound, then, and no method.
        rehearsal: share of the training images that are the source domain's.
        keeps_statistics: whether batch norm keeps its running statistics instead of using those of batches.
        needs_whole_weights: whether every process needs all weights, so that FSDP cannot be used.
    """

    title: str
    uses: tuple[str, ...] = ("seen train",)
    oracle = False
    rehearsal = 0.0
    keeps_statistics = False
    needs_whole_weights = False

    def __init__(
        self,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        freeze_bn: bool = False,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: choose 0 or more, and less than 1")
        for name, value in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value}: choose 0 for none, or a positive number")
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        self.cutmix = cutmix
        self.freeze_bn = freeze_bn
        self.keeps_statistics = freeze_bn or self.keeps_statistics
        self._frozen: list[nn.Parameter] = []
        self._held: list[nn.Module] = []
        self._mix: v2.Transform | None = None

    def prepare(self, classifier: Classifier, task: Task) -> None:
        """Freeze, wrap or replace parts of a classifier that has the source model's weights.

        Args:
            classifier: changed in place.
            task: the classes to train on.
        """
        if self.keeps_statistics:
            self.hold_statistics(batch_norms(classifier))
        if self.freeze_bn:
            self.freeze(p for norm in batch_norms(classifier) for p in norm.parameters(recurse=False))
        asked: tuple[tuple[Any, float], ...] = ((v2.MixUp, self.mixup), (v2.CutMix, self.cutmix))
        columns = task.partition.num_classes
        kinds = [kind(alpha=alpha, num_classes=columns) for kind, alpha in asked if alpha]
        self._mix = v2.RandomChoice(kinds) if kinds else None

    def freeze(self, parameters: Iterable[nn.Parameter]) -> None:
        """Keep parameters bit for bit until `finish`."""
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.requires_grad_(False)
                self._frozen.append(parameter)

    def hold_statistics(self, norms: Iterable[nn.Module]) -> None:
        """Keep the running statistics of batch norms bit for bit until `finish`."""
        # In eval mode, which Lightning leaves as it is, batch norm keeps its running statistics.
        self._held += [norm.eval() for norm in norms]

    def parameter_groups(self, classifier: Classifier) -> dict[str, list[nn.Parameter]]:
        """The parameters to train, by group: ``backbone`` has a learning rate of its own."""
        parts = {"backbone": classifier.backbone, "head": classifier.head}
        return {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}

    def begin_step(self, classifier: Classifier, step: int, steps: int) -> None:
        """Prepare a step of the training: the ``step``-th from 0, of ``steps``."""

    def mixed(self, batch: Batch) -> Batch:
        """The batch with its images mixed, and labels (N,) then probabilities (N, C)."""
        if self._mix is None:
            return batch
        image, target = self._mix(batch["image"], batch["target"])
        return {**batch, "image": image, "target": target}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The loss of a training step, a scalar.

        Args:
            outputs: ``logits`` (N, C), −inf in columns that the training must not know, and ``features``
                (N, D); float32.
            batch: the batch of the training loader, mixed.
        """
        return self.cross_entropy(outputs["logits"], batch["target"]).mean()

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy (N,) with smoothed labels, over the columns whose logits are not −inf.

        Args:
            logits: float32 (N, C).
            target: columns, int64 (N,), or probabilities, float32 (N, C).
        """
        if target.ndim == 1 and not self.label_smoothing:
            return nn.functional.cross_entropy(logits, target, reduction="none")
        known = logits != -torch.inf
        if target.ndim == 1:
            target = nn.functional.one_hot(target, logits.shape[1])
        even = known / known.sum(1, keepdim=True)
        target = torch.lerp(target.to(even), even, self.label_smoothing)
        return -(target * logits.log_softmax(1).masked_fill(~known, 0)).sum(1)

    def adjust_gradients(self, classifier: Classifier) -> None:
        """Change the gradients of a step, which are those of the whole batch, before they are clipped."""

    def end_step(self, classifier: Classifier, optimizer: Optimizer, step: int, steps: int) -> None:
        """Follow the optimiser's step, the ``step``-th from 1, of ``steps``."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on from: tensors and plain types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""

    def finish(self, classifier: Classifier) -> bool:
        """Make the trained classifier a plain one: all weights trainable, named as in its timm model.

        Returns:
            Whether it now predicts otherwise than at the end of training.
        """
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        for norm in self._held:
            norm.train()
        return False


def without_columns(logits: Tensor, columns: Tensor) -> Tensor:
    """Logits (N, C) with −inf in some columns, int64 on their device, which a softmax then leaves out."""
    return logits.index_fill(1, columns, -torch.inf)
