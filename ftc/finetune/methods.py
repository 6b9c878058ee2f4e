"""Ways to fine-tune a classifier. An object serves one training, and knows nothing of any other."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ftc.data.loaders import Batch
from ftc.models import Classifier
from ftc.partition import ClassPartition


class Method:
    """A way to fine-tune: what is trained, on which loss, and how the model becomes a plain one again.

    Training calls `prepare`, `parameter_groups`, `loss` at every step, and `finish`. This class trains every
    weight on the cross-entropy over all head columns; others change what they differ in.

    Attributes:
        title: its name in print.
    """

    title: str

    def prepare(self, classifier: Classifier, partition: ClassPartition) -> None:
        """Freeze, wrap or replace parts of a classifier that has the source model's weights.

        Args:
            classifier: changed in place.
            partition: the classes that are trained on are its seen ones.
        """

    def parameter_groups(self, classifier: Classifier) -> dict[str, list[nn.Parameter]]:
        """The parameters to train, of ``backbone`` and ``head``, which have learning rates of their own."""
        parts = {"backbone": classifier.backbone, "head": classifier.head}
        return {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The loss of a training step, a scalar.

        Args:
            outputs: ``logits`` (N, C), −inf in columns that the training must not know, and ``features``
                (N, D); float32.
            batch: what the training loader gave.
        """
        return nn.functional.cross_entropy(outputs["logits"], batch["target"])

    def finish(self, classifier: Classifier) -> None:
        """Make the trained classifier a plain one: all weights trainable, named as in its timm model."""


class Full(Method):
    """Naive fine-tuning: every weight, cross-entropy over *all* head columns (the paper's setting)."""

    title = "full fine-tuning"


class LinearProbe(Method):
    """The head alone: the backbone keeps its weights and its batch statistics to the last bit."""

    title = "linear probe"

    def prepare(self, classifier: Classifier, partition: ClassPartition) -> None:
        # Lightning leaves modes as they are; batch norm in eval mode keeps its running statistics.
        classifier.backbone.requires_grad_(False).eval()

    def finish(self, classifier: Classifier) -> None:
        classifier.backbone.requires_grad_(True).train()


class SeenSoftmax(Method):
    """Every weight, cross-entropy over the seen columns alone: no gradient lowers absent logits."""

    title = "seen softmax"

    def prepare(self, classifier: Classifier, partition: ClassPartition) -> None:
        self._not_seen = [c for c in range(partition.num_classes) if c not in partition.seen]

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        logits = without_columns(outputs["logits"], self._not_seen)
        return super().loss({**outputs, "logits": logits}, batch)


def without_columns(logits: Tensor, columns: Iterable[int]) -> Tensor:
    """Logits (N, C) with −inf in some columns, which a softmax then leaves out."""
    return logits.index_fill(1, torch.tensor(list(columns), device=logits.device), -torch.inf)
