"""The source model: trained once on the source domain, then taken from the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from ftc.models import Classifier, load_weights, save_weights


def prepare_source(
    classifier: Classifier, identity: Mapping[str, Any], cache: Path, train: Callable[[Classifier], None]
) -> tuple[Path, bool]:
    """Bring the classifier to the source model's weights, training only where no run has done so before.

    The weights always come from the file, so that a cached stage changes nothing after it. Jobs that want
    the same source at once wait for the one that trains it.

    Args:
        classifier: trained or loaded in place.
        identity: everything that shaped the source model, JSON types; its hash names the file.
        cache: folder of source models.
        train: trains the classifier on the source domain.

    Returns:
        The weights' file, and whether it was trained just now.
    """
    content = json.dumps(identity, sort_keys=True)
    path = cache / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.safetensors"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        trained = not path.is_file()
        if trained:
            train(classifier)
            save_weights(path, classifier.timm_state_dict(), {"source": content})
    load_weights(path, classifier)
    return path, trained
