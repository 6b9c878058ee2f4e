"""ftc: fine-tune on the classes you have, keep the classes you don't.

The public names are imported on first use, so that ``import ftc`` costs nothing and the parts that
need neither Lightning nor Hydra never load them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__: str

_EXPORTS = {
    "ClassPartition": "ftc.partition.class_partition",
    "CalibrationCallback": "ftc.callbacks",
    "Classifier": "ftc.models",
    "FineTuneModule": "ftc.finetune",
    "InputError": "ftc.errors",
    "PartitionedDataModule": "ftc.data",
}

__all__ = [  # noqa: RUF022 - the order of _EXPORTS
    "ClassPartition",
    "CalibrationCallback",
    "Classifier",
    "FineTuneModule",
    "InputError",
    "PartitionedDataModule",
]

if TYPE_CHECKING:
    from ftc.callbacks import CalibrationCallback
    from ftc.data import PartitionedDataModule
    from ftc.errors import InputError
    from ftc.finetune import FineTuneModule
    from ftc.models import Classifier
    from ftc.partition import ClassPartition


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("ftc")
    if name not in _EXPORTS:
        raise AttributeError(f"module 'ftc' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
