"""From a finished run's folder to a model in production, and predictions by it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["Prediction", "Predictor"]

if TYPE_CHECKING:
    from ftc.export.predictor import Prediction, Predictor


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ftc.export' has no attribute {name!r}")
    return getattr(import_module("ftc.export.predictor"), name)
