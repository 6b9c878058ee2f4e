"""Classifiers of backbone and head, and files of their weights."""

from ftc.models.checkpoints import LoadReport, load_checkpoint, named_columns
from ftc.models.classifier import Classifier, create_classifier, label_names, pretrained_width
from ftc.models.clip import create_clip_classifier
from ftc.models.weights import (
    cached_tensors,
    checksum,
    copied,
    fold_gamma,
    load_metadata,
    load_tensors,
    load_weights,
    other_weights,
    save_weights,
)

__all__ = [
    "Classifier",
    "LoadReport",
    "cached_tensors",
    "checksum",
    "copied",
    "create_classifier",
    "create_clip_classifier",
    "fold_gamma",
    "label_names",
    "load_checkpoint",
    "load_metadata",
    "load_tensors",
    "load_weights",
    "named_columns",
    "other_weights",
    "pretrained_width",
    "save_weights",
]
