"""Methods that differ in what they train, and on which images."""

from __future__ import annotations

from typing import Any

from torch import nn

from ftc.finetune.method import Method, Task
from ftc.models import Classifier


class Full(Method):
    """Naive fine-tuning, the paper's setting: every weight, with cross-entropy over *all* head columns."""

    title = "full fine-tuning"


class LinearProbe(Method):
    """Fine-tuning of the head alone; the backbone keeps its weights and batch statistics bit for bit."""

    title = "linear probe"
    keeps_statistics = True

    def prepare(self, classifier: Classifier, task: Task) -> None:
        super().prepare(classifier, task)
        self.freeze(classifier.backbone.parameters())
        # Dropout and stochastic depth would disturb features that nothing learns from.
        self.hold_statistics([classifier.backbone])


class FrozenHead(Method):
    """Fine-tuning of the backbone alone, as the paper compares; the head keeps its weights bit for bit."""

    title = "frozen head"

    def prepare(self, classifier: Classifier, task: Task) -> None:
        super().prepare(classifier, task)
        self.freeze(classifier.head.parameters())


class LPFT(Method):
    """Linear probing, then fine-tuning (Kumar et al. 2022), in one training with one schedule.

    Args:
        probe: share of the steps that train the head alone.
        options: those of every method, see `Method`.
    """

    def __init__(self, probe: float = 0.3, **options: Any) -> None:
        super().__init__(**options)
        if not 0 < probe < 1:
            raise ValueError(f"probe={probe}: choose a share of the steps between 0 and 1")
        self.title = f"LP-FT, {probe:.0%} probing"
        self.probe = probe
        self._probing: bool | None = None

    def begin_step(self, classifier: Classifier, step: int, steps: int) -> None:
        probing = step < self.probe * steps
        if probing != self._probing:
            self._probing = probing
            classifier.backbone.train(not probing)
            for norm in self._held:
                norm.eval()

    def adjust_gradients(self, classifier: Classifier) -> None:
        # All processes must compute every gradient, or DDP would wait for those of the backbone.
        if self._probing:
            for parameter in classifier.backbone.parameters():
                parameter.grad = None


class BitFit(Method):
    """Fine-tuning of biases and the head (Ben Zaken et al. 2022), at the head's learning rate.

    All other weights, and batch statistics, stay as they are bit for bit.
    """

    title = "BitFit"
    keeps_statistics = True

    def prepare(self, classifier: Classifier, task: Task) -> None:
        super().prepare(classifier, task)
        named = classifier.backbone.named_parameters()
        self.freeze(p for name, p in named if name.rpartition(".")[2] != "bias")

    def parameter_groups(self, classifier: Classifier) -> dict[str, list[nn.Parameter]]:
        groups = super().parameter_groups(classifier)
        return {"biases": groups["backbone"], "head": groups["head"]}


class Rehearsal(Method):
    """Full fine-tuning on seen target images mixed with source-domain images of seen and absent classes.

    Args:
        share: share of the training images that are the source domain's.
        options: those of every method, see `Method`.
    """

    uses = ("seen train", "source domain")

    def __init__(self, share: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        if not 0 < share < 1:
            raise ValueError(f"share={share}: choose a share of the images between 0 and 1")
        self.title = f"rehearsal, {share:.0%} source images"
        self.rehearsal = share


class OracleAll(Method):
    """Full fine-tuning on target images of all classes: what one could reach with labels of absent ones."""

    title = "oracle: trained on all classes"
    uses = ("seen train", "absent train (oracle)")
    oracle = True
