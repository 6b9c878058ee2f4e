"""Methods that train every weight on a loss of their own."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftc.data.loaders import Batch
from ftc.finetune.method import Method, Task, without_columns
from ftc.models import Classifier


class SeenSoftmax(Method):
    """Fine-tuning with cross-entropy over seen columns: no gradient lowers absent logits."""

    title = "seen softmax"

    def prepare(self, classifier: Classifier, task: Task) -> None:
        super().prepare(classifier, task)
        partition = task.partition
        self._not_seen = torch.tensor((*partition.absent, *partition.others), dtype=torch.int64)

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        self._not_seen = self._not_seen.to(outputs["logits"].device)  # a copy in the first step only
        logits = without_columns(outputs["logits"], self._not_seen)
        return super().loss({**outputs, "logits": logits}, batch)


class BalancedSoftmax(Method):
    """Fine-tuning with cross-entropy of z + τ log n, n being the training images of each class.

    Balanced softmax (Ren et al. 2020) at τ = 1, in general logit adjustment (Menon et al. 2021). The softmax
    expects few images of a class without any, so that little pushes its logit down.

    Args:
        tau: τ.
        floor: n of the classes that have fewer images than this.
        options: those of every method, see `Method`.
    """

    def __init__(self, tau: float = 1.0, floor: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        if not floor > 0:
            raise ValueError(f"floor={floor}: choose a positive number of images")
        self.title = "balanced softmax" if tau == 1 else f"balanced softmax, τ = {tau:g}"
        self.tau = tau
        self.floor = floor

    def prepare(self, classifier: Classifier, task: Task) -> None:
        super().prepare(classifier, task)
        self._prior = self.tau * task.counts.float().clamp(min=self.floor).log()

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        self._prior = self._prior.to(outputs["logits"].device)
        return super().loss({**outputs, "logits": outputs["logits"] + self._prior}, batch)


class L2SP(Method):
    """Fine-tuning with the penalty β/2 ‖θ − θ0‖² on the distance to the source model (Li et al. 2018).

    The penalty goes into the gradients; the loss that is printed is without it.

    Args:
        beta: β, for every weight, the head's too.
        options: those of every method, see `Method`.
    """

    needs_whole_weights = True

    def __init__(self, beta: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        if beta < 0:
            raise ValueError(f"beta={beta}: choose 0 or more")
        self.title = f"L2-SP, β = {beta:g}"
        self.beta = beta

    def prepare(self, classifier: Classifier, task: Task) -> None:
        super().prepare(classifier, task)
        self._start = [p.detach().clone() for p in classifier.parameters()]

    def adjust_gradients(self, classifier: Classifier) -> None:
        parameters = list(classifier.parameters())
        self._start = [old.to(new.device) for old, new in zip(self._start, parameters, strict=True)]
        for start, parameter in zip(self._start, parameters, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start, alpha=self.beta)


class LwF(Method):
    """Learning without forgetting (Li and Hoiem 2016): distillation from the source model on seen images.

    The loss is the cross-entropy plus λ T² KL(p0 ‖ p), p0 and p being the source model's and the trained
    model's softmax of z / T over some columns, on the same images.

    Args:
        columns: those of the two softmaxes: ``absent``, ``seen``, or ``all`` of both.
        temperature: T.
        weight: λ.
        options: those of every method, see `Method`.
    """

    needs_whole_weights = True

    def __init__(
        self,
        columns: Literal["absent", "seen", "all"] = "absent",
        temperature: float = 2.0,
        weight: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if columns not in ("absent", "seen", "all"):
            raise ValueError(f"columns={columns}: choose absent, seen or all")
        if not temperature > 0 or weight < 0:
            raise ValueError("choose a temperature above 0 and a weight of 0 or more")
        self.title = f"LwF on {columns} columns, λ = {weight:g}"
        self.columns = columns
        self.temperature = temperature
        self.weight = weight

    def prepare(self, classifier: Classifier, task: Task) -> None:
        super().prepare(classifier, task)
        self._source = deepcopy(classifier).eval().requires_grad_(False)
        groups = {"absent": task.partition.absent, "seen": task.partition.seen}
        chosen = groups.get(self.columns, (*task.partition.seen, *task.partition.absent))
        self._columns = torch.tensor(chosen, dtype=torch.int64)

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        logits = outputs["logits"]
        if self._columns.device != logits.device:
            self._columns, self._source = self._columns.to(logits.device), self._source.to(logits.device)
        with torch.no_grad():
            source = self._source(batch["image"])
        before, after = (
            (z.index_select(1, self._columns) / self.temperature).log_softmax(1) for z in (source, logits)
        )
        distance = nn.functional.kl_div(after, before, reduction="batchmean", log_target=True)
        return super().loss(outputs, batch) + self.weight * self.temperature**2 * distance
