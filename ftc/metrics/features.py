"""Class means of features, streamed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ftc.functional.features import class_sums


class NearestClassMean(Metric):
    """Class means of L2-normalised features: the NCM classifier's weights (see `cosine_logits`).

    Fit it on target *training* data of all classes. It then knows absent-class data: a probe of feature
    quality, never a method.

    Args:
        num_classes: width C of the head.
        num_features: width D of the features.
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, num_features: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        zeros = torch.zeros(num_classes, num_features, dtype=torch.float64)
        self.add_state("sums", default=zeros, dist_reduce_fx="sum")
        self.add_state("counts", default=torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features: Tensor, target: Tensor) -> None:
        """Add features (N, D) and labels (N,)."""
        sums, counts = class_sums(features, target, self.num_classes)
        self.sums += sums
        self.counts += counts

    def compute(self) -> Tensor:
        """Class means, float64 (C, D); a row of ``nan`` for a class without samples."""
        return self.sums / self.counts[:, None]
