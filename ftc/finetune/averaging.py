"""Methods that average weights: of the source and the fine-tuned model, or of several fine-tuned ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from ftc.data.loaders import Batch
from ftc.errors import InputError
from ftc.finetune.method import Method, Task
from ftc.functional import interpolate_weights
from ftc.models import Classifier, copied


class WiSEFT(Method):
    """Full fine-tuning, then the weights θ0 + α (θ1 − θ0) (Wortsman et al. 2022).

    Validations during training see θ1. The calibrator `Interpolated` does the same with an α that V chooses.

    Args:
        alpha: α.
        options: those of every method, see `Method`.
    """

    def __init__(self, alpha: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha={alpha}: choose a share between 0 and 1")
        self.title = f"WiSE-FT, α = {alpha:g}"
        self.alpha = alpha

    def prepare(self, classifier: Classifier, task: Task) -> None:
        super().prepare(classifier, task)
        self._source = copied(classifier.timm_state_dict())

    def finish(self, classifier: Classifier) -> bool:
        after = copied(classifier.timm_state_dict())
        classifier.load_timm_state_dict(interpolate_weights(self._source, after, self._shares(classifier)))
        super().finish(classifier)
        return True

    def _shares(self, classifier: Classifier) -> float | dict[str, float]:
        return self.alpha


class LiNeS(WiSEFT):
    """Full fine-tuning, then weights whose change grows with the layer's depth (Wang et al. 2025).

    Layer l of 0 … L gets the share α + (1 − α) l / L of its change; the head, layer L, gets all of it.

    Args:
        alpha: α, the share of the first layer, from 0.
        options: those of every method, see `Method`.
    """

    def __init__(self, alpha: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha={alpha}: choose a share from 0 to below 1")
        self.title = f"LiNeS, α = {alpha:g}"
        self.alpha = alpha

    def _shares(self, classifier: Classifier) -> dict[str, float]:
        layers = classifier.layers()
        last = max(layers.values())
        return {name: self.alpha + (1 - self.alpha) * layer / last for name, layer in layers.items()}


class LOLSGD(Method):
    """Leave-out local SGD (Tu et al. 2023): averages of models that each leave other seen classes out.

    The training is divided into rounds. In a round, every local model starts from the same weights, leaves
    some seen classes out, by turns in a random order, and trains on the others for its share of the steps,
    with a new state of the optimiser; the mean of the local models begins the next round. What the local
    models have in common is the new domain; what each does to the classes that it lacks differs, and averages
    out.

    Args:
        rounds: rounds of the training.
        local_models: local models of a round.
        left_out: share of the seen classes that a local model leaves out; at least one, and not all.
        seed: with the round it determines their order.
        options: those of every method, see `Method`.
    """

    needs_whole_weights = True

    def __init__(
        self,
        rounds: int = 5,
        local_models: int = 4,
        left_out: float = 0.5,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if rounds < 1 or local_models < 2 or not 0 < left_out < 1:
            raise ValueError("choose 1 round or more, 2 local models or more, and left_out between 0 and 1")
        self.title = f"LOLSGD, {rounds} × {local_models} local models"
        self.rounds = rounds
        self.local_models = local_models
        self.left_out = left_out
        self.seed = seed

    def prepare(self, classifier: Classifier, task: Task) -> None:
        super().prepare(classifier, task)
        if len(task.partition.seen) < 2:
            raise InputError("method: LOLSGD leaves seen classes out, and there is one alone; choose another")
        self._seen, self._counts = task.partition.seen, task.counts
        self._number: int | None = None  # of the local model that trains
        self._begin_round(classifier)

    def _local_steps(self, steps: int) -> int:
        return max(1, steps // (self.rounds * self.local_models))

    def begin_step(self, classifier: Classifier, step: int, steps: int) -> None:
        number = step // self._local_steps(steps)
        if number == self._number:
            return
        self._number = number
        round_, local = divmod(number, self.local_models)
        order = np.random.default_rng((self.seed, round_)).permutation(len(self._seen))
        size = min(max(1, round(self.left_out * len(order))), len(order) - 1)
        # The local models of a round leave all classes out about equally often.
        kept = [self._seen[i] for i in np.roll(order, -local * size)[size:]]
        # The loss is divided by the share of the kept classes' images, not by how many of them a process has
        # of a batch: the gradients' mean over processes is then that of the whole batch.
        self._weights = torch.zeros(len(self._counts), device=classifier.head.weight.device)
        self._weights[kept] = float(self._counts.sum() / self._counts[kept].sum())

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        logits, target = outputs["logits"], batch["target"]
        weight = self._weights[target] if target.ndim == 1 else target @ self._weights
        return (weight * self.cross_entropy(logits, target)).mean()

    def end_step(self, classifier: Classifier, optimizer: Optimizer, step: int, steps: int) -> None:
        self._taken += 1
        if step % self._local_steps(steps) and step < steps:
            return
        self._end_local(classifier)
        optimizer.state.clear()
        if self._done == self.local_models or step == steps:
            self._end_round(classifier)
        else:
            _load(classifier, self._start)

    def _begin_round(self, classifier: Classifier) -> None:
        self._start, self._done, self._taken = _floating(classifier), 0, 0
        self._sum = {name: torch.zeros_like(value) for name, value in self._start.items()}

    def _end_local(self, classifier: Classifier) -> None:
        for name, value in _floating(classifier).items():
            self._sum[name] = self._sum[name].to(value.device) + value
        self._done, self._taken = self._done + 1, 0

    def _end_round(self, classifier: Classifier) -> None:
        _load(classifier, {name: value / self._done for name, value in self._sum.items()})
        self._begin_round(classifier)

    def state_dict(self) -> dict[str, Any]:
        return {"start": self._start, "sum": self._sum, "done": self._done, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._start, self._sum = state["start"], state["sum"]
        self._done, self._taken = state["done"], state["taken"]

    def finish(self, classifier: Classifier) -> bool:
        # A training that ended early leaves a round open.
        is_open = bool(self._done or self._taken)
        if self._taken:
            self._end_local(classifier)
        if is_open:
            self._end_round(classifier)
        super().finish(classifier)
        return is_open


def _floating(classifier: Classifier) -> dict[str, Tensor]:
    """Copies of weights and buffers, without counters, which are whole numbers."""
    state = classifier.state_dict()
    return {name: value.clone() for name, value in state.items() if value.is_floating_point()}


def _load(classifier: Classifier, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in classifier.state_dict().items():
            if name in values:
                value.copy_(values[name], non_blocking=True)
