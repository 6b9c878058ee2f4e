"""A classifier made again from the description that its weights' file has of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ftc.models.classifier import Classifier, create_classifier
from ftc.models.clip import create_clip_classifier


def description(classifier: Classifier) -> dict[str, Any]:
    """What `restore_classifier` needs beside the weights, in JSON types."""
    return {
        "model": classifier.origin,
        "head": classifier.head_name,
        "data_config": classifier.data_config,
    }


def restore_classifier(described: Mapping[str, Any], state: Mapping[str, Tensor]) -> Classifier:
    """Make a classifier again, in eval mode, without anything that a configuration or the hub says.

    Args:
        described: what `description` gave.
        state: the weights, named as in the plain timm model.

    Raises:
        InputError: a package that the model needs is not installed.
        KeyError, RuntimeError: the weights are not of the model that is described.
    """
    origin, head = described["model"], described["head"]
    num_classes = len(state[f"{head}.bias"])
    if origin["kind"] == "clip":
        # Class names shape only the weights, which are at hand.
        names = [""] * num_classes
        classifier = create_clip_classifier(origin["name"], origin["pretrained"], names, weights=False)
    else:
        kwargs = {**origin["arguments"], "pretrained_cfg_overlay": described["data_config"]}
        classifier = create_classifier(
            origin["architecture"], num_classes, kwargs=kwargs, head=origin["head"]
        )
    classifier.load_timm_state_dict(dict(state))
    return classifier.eval()
