"""Backbone and head, and the files they live in."""

from ftc.models.checkpoints import fold_gamma, load_weights, save_weights
from ftc.models.classifier import Classifier, create_classifier

__all__ = ["Classifier", "create_classifier", "fold_gamma", "load_weights", "save_weights"]
