"""Weights that calibrators move: a way between source and fine-tuned model, and the rows of a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping

from attrs import frozen
from torch import Tensor


@frozen(eq=False)
class LinearHead:
    """A linear classifier of features.

    Attributes:
        weight: (C, D).
        bias: (C,).
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], name: str) -> LinearHead:
        """The head of a name among tensors.

        Raises:
            KeyError: its weight or its bias is not there.
        """
        return cls(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def named(self, name: str) -> dict[str, Tensor]:
        """Its tensors as `of` finds them."""
        return {f"{name}.weight": self.weight, f"{name}.bias": self.bias}

    def logits(self, features: Tensor) -> Tensor:
        """Logits of features (N, D), float64 (N, C)."""
        return features.double() @ self.weight.double().T + self.bias.double()

    def moved(self, weight: Tensor, bias: Tensor) -> LinearHead:
        """The head with changes added in float64, rounded to its own type."""
        return LinearHead(
            (self.weight.double() + weight).to(self.weight), (self.bias.double() + bias).to(self.bias)
        )


class WeightPath(ABC):
    """A way from the source model's weights (α = 0) to the fine-tuned model's (α = 1).

    Whoever runs the calibrator makes the model at α, evaluates it, and hands its evidence to the calibrator.

    Attributes:
        alpha: the α to take; None lets `choose` decide.
        candidates: the α that `choose` compares, beside 0 and 1.
        family: equal for paths that make the same model at the same α.
    """

    alpha: float | None = None
    candidates: tuple[float, ...] = ()

    @property
    def family(self) -> Hashable:
        return id(self)

    @abstractmethod
    def at(
        self, source: Mapping[str, Tensor], fine_tuned: Mapping[str, Tensor], alpha: float
    ) -> dict[str, Tensor]:
        """The state dict at α. Both ends have the same names and shapes, in any order."""

    @abstractmethod
    def choose(self, hits: Mapping[float, Tensor]) -> float:
        """Choose α by the accuracy on held-out seen samples.

        Args:
            hits: argmax_F z = y of held-out seen samples, bool (N,), by α, with 0 and 1 among them; empty
                where a logit is not finite.
        """
