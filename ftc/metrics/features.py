"""Streaming class means of features, and the drift of features by fine-tuning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ftc.functional.features import class_sums, feature_change
from ftc.functional.inputs import label_groups
from ftc.functional.scale import SAMPLE_GROUPS
from ftc.partition import ClassPartition


class NearestClassMean(Metric):
    """Class means of L2-normalised features: the NCM classifier's weights (see `cosine_logits`).

    Fit it on target *training* data of all classes. It then knows absent-class data, so it is a probe
    of feature quality and is not to be compared with calibrators.

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


class FeatureDrift(Metric):
    """The drift of features of seen and of absent samples by fine-tuning (docs/definitions.md, "Metrics").

    Args:
        partition: seen, absent and other columns of the head.
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, partition: ClassPartition, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.partition = partition
        groups = len(SAMPLE_GROUPS)
        self.add_state("sums", torch.zeros(groups, 3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(groups, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features: Tensor, source_features: Tensor, target: Tensor) -> None:
        """Add features (N, D) of the fine-tuned and of the source model for the same images, labels (N,)."""
        change = torch.stack(feature_change(features, source_features), 1)
        groups = label_groups(target, self.partition)
        for row, (_, code) in enumerate(SAMPLE_GROUPS):
            self.sums[row] += change[groups == code].sum(0)
            self.counts[row] += (groups == code).sum()

    def compute(self) -> dict[str, float]:
        """Means over samples; ``nan`` for a group without samples.

        Returns:
            ``feature_cosine_on_seen`` and ``…_on_absent``, the mean cosine of new to old features;
            ``feature_shift_on_seen`` and ``…_on_absent``, their mean L2 distance divided by the mean L2 norm
            of the old ones.
        """
        result = {}
        for (group, _), (cosine, distance, norm), count in zip(
            SAMPLE_GROUPS, self.sums, self.counts, strict=True
        ):
            result[f"feature_cosine_on_{group}"] = float(cosine / count)
            result[f"feature_shift_on_{group}"] = float(distance / norm)
        return result
