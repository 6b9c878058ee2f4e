"""The source model: trained once on the source domain, then taken from the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ftc.models import Classifier, cached_tensors, load_weights


def prepare_source(
    classifier: Classifier,
    identity: Mapping[str, Any],
    cache: Path,
    train: Callable[[Classifier, Path], None],
) -> tuple[Path, bool]:
    """Bring the classifier to the source model's weights, training only where no run has done so before.

    The weights always come from the file, so that a cached stage changes nothing after it.

    Args:
        classifier: trained or loaded in place.
        identity: everything that shaped the source model, JSON types; its hash names the file.
        cache: folder of source models.
        train: trains the classifier on the source domain, going on from a checkpoint where there is one.

    Returns:
        The weights' file, and whether it was trained just now.
    """

    def weights(checkpoint: Path) -> dict[str, Tensor]:
        train(classifier, checkpoint)
        return classifier.timm_state_dict()

    path, trained = cached_tensors(identity, cache, weights)
    load_weights(path, classifier)
    return path, trained
