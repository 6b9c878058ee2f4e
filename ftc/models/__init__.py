"""Backbone and head, and the files they live in."""

from ftc.models.checkpoints import (
    cached_tensors,
    fold_gamma,
    interpolate_weights,
    load_tensors,
    load_weights,
    save_weights,
)
from ftc.models.classifier import Classifier, create_classifier

__all__ = [
    "Classifier",
    "cached_tensors",
    "create_classifier",
    "fold_gamma",
    "interpolate_weights",
    "load_tensors",
    "load_weights",
    "save_weights",
]
