"""Methods: ways to fine-tune a classifier. An object serves one training, and knows nothing of any other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ftc.data.loaders import Batch
from ftc.models import Classifier
from ftc.partition import ClassPartition


class Method:
    """A way to fine-tune: what is trained, on which loss, and how the model becomes a plain one again.

    Training calls `prepare`, `parameter_groups`, `loss` at every step, and `finish`. This class trains every
    weight on the cross-entropy over all head columns; subclasses override what they do differently.

    Attributes:
        title: the printed name.
        keeps_statistics: whether batch norm keeps its running statistics instead of using those of batches.
    """

    title: str
    keeps_statistics = False

    def prepare(self, classifier: Classifier, partition: ClassPartition) -> None:
        """Freeze, wrap or replace parts of a classifier that has the source model's weights.

        Args:
            classifier: changed in place.
            partition: seen, absent and other head columns; training uses images of seen classes only.
        """

    def parameter_groups(self, classifier: Classifier) -> dict[str, list[nn.Parameter]]:
        """The parameters to train, by group: ``backbone`` and ``head`` have separate learning rates."""
        parts = {"backbone": classifier.backbone, "head": classifier.head}
        return {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The loss of a training step, a scalar.

        Args:
            outputs: ``logits`` (N, C), −inf in columns that the training must not know, and ``features``
                (N, D); float32.
            batch: the batch of the training loader.
        """
        return nn.functional.cross_entropy(outputs["logits"], batch["target"])

    def finish(self, classifier: Classifier) -> None:
        """Make the trained classifier a plain one: all weights trainable, named as in its timm model."""


class Full(Method):
    """Naive fine-tuning, the paper's setting: every weight, with cross-entropy over *all* head columns."""

    title = "full fine-tuning"


class LinearProbe(Method):
    """Fine-tuning of the head alone; the backbone keeps its weights and batch statistics bit for bit."""

    title = "linear probe"
    keeps_statistics = True

    def prepare(self, classifier: Classifier, partition: ClassPartition) -> None:
        # In eval mode, which Lightning leaves as it is, batch norm keeps its running statistics.
        classifier.backbone.requires_grad_(False).eval()

    def finish(self, classifier: Classifier) -> None:
        classifier.backbone.requires_grad_(True).train()


class SeenSoftmax(Method):
    """Fine-tuning of every weight with cross-entropy over seen columns: no gradient lowers absent logits."""

    title = "seen softmax"

    def prepare(self, classifier: Classifier, partition: ClassPartition) -> None:
        self._not_seen = torch.tensor((*partition.absent, *partition.others), dtype=torch.int64)

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        self._not_seen = self._not_seen.to(outputs["logits"].device)  # a copy in the first step only
        logits = without_columns(outputs["logits"], self._not_seen)
        return super().loss({**outputs, "logits": logits}, batch)


def without_columns(logits: Tensor, columns: Tensor) -> Tensor:
    """Logits (N, C) with −inf in some columns, int64 on their device, which a softmax then leaves out."""
    return logits.index_fill(1, columns, -torch.inf)
