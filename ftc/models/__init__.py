"""Backbone and head, and the files they live in."""

from ftc.models.checkpoints import (
    LoadReport,
    cached_tensors,
    fold_gamma,
    interpolate_weights,
    load_checkpoint,
    load_tensors,
    load_weights,
    save_weights,
)
from ftc.models.classifier import Classifier, create_classifier, label_names, pretrained_width
from ftc.models.clip import create_clip_classifier

__all__ = [
    "Classifier",
    "LoadReport",
    "cached_tensors",
    "create_classifier",
    "create_clip_classifier",
    "fold_gamma",
    "interpolate_weights",
    "label_names",
    "load_checkpoint",
    "load_tensors",
    "load_weights",
    "pretrained_width",
    "save_weights",
]
