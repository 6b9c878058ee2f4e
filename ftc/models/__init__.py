"""Classifiers of backbone and head, and files of their weights."""

from ftc.models.checkpoints import LoadReport, load_checkpoint, named_columns
from ftc.models.classifier import (
    Classifier,
    batch_norms,
    checkpoint_gradients,
    create_classifier,
    label_names,
    plain_timm_model,
    pretrained_width,
)
from ftc.models.clip import create_clip_classifier
from ftc.models.heads import head_rows
from ftc.models.mlp import SmallMLP
from ftc.models.restore import description, restore_classifier
from ftc.models.weights import (
    begun_columns,
    cached_tensors,
    checksum,
    copied,
    fold_calibration,
    load_metadata,
    load_tensors,
    load_weights,
    other_weights,
    save_weights,
    tensor_shape,
)

__all__ = [
    "Classifier",
    "LoadReport",
    "SmallMLP",
    "batch_norms",
    "begun_columns",
    "cached_tensors",
    "checkpoint_gradients",
    "checksum",
    "copied",
    "create_classifier",
    "create_clip_classifier",
    "description",
    "fold_calibration",
    "head_rows",
    "label_names",
    "load_checkpoint",
    "load_metadata",
    "load_tensors",
    "load_weights",
    "named_columns",
    "other_weights",
    "plain_timm_model",
    "pretrained_width",
    "restore_classifier",
    "save_weights",
    "tensor_shape",
]
