"""Readers of images, samplers, and the Lightning data module with its class partition.

Names are imported on first use: what lists and decodes images needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "ArrayReader": "ftc.data.readers",
    "Checked": "ftc.data.checks",
    "ClassFolders": "ftc.data.folders",
    "EncodedReader": "ftc.data.readers",
    "EndlessSampler": "ftc.data.sampler",
    "Groups": "ftc.data.groups",
    "HubDataset": "ftc.data.libraries",
    "ImageCache": "ftc.data.cache",
    "ListFile": "ftc.data.folders",
    "Loading": "ftc.data.datamodule",
    "PartitionedDataModule": "ftc.data.datamodule",
    "Preprocessing": "ftc.data.transforms",
    "Reader": "ftc.data.readers",
    "ShardSampler": "ftc.data.sampler",
    "TorchvisionDataset": "ftc.data.libraries",
    "UnlabelledFolder": "ftc.data.folders",
    "batch_share": "ftc.data.sampler",
    "check_images": "ftc.data.checks",
    "columns_of": "ftc.data.columns",
    "groups_of": "ftc.data.groups",
    "hold_out": "ftc.data.holdout",
    "select": "ftc.data.readers",
    "workers": "ftc.data.store",
}

if TYPE_CHECKING:
    from ftc.data.cache import ImageCache
    from ftc.data.checks import Checked, check_images
    from ftc.data.columns import columns_of
    from ftc.data.datamodule import Loading, PartitionedDataModule
    from ftc.data.folders import ClassFolders, ListFile, UnlabelledFolder
    from ftc.data.groups import Groups, groups_of
    from ftc.data.holdout import hold_out
    from ftc.data.libraries import HubDataset, TorchvisionDataset
    from ftc.data.readers import ArrayReader, EncodedReader, Reader, select
    from ftc.data.sampler import EndlessSampler, ShardSampler, batch_share
    from ftc.data.store import workers
    from ftc.data.transforms import Preprocessing

__all__ = [
    "ArrayReader",
    "Checked",
    "ClassFolders",
    "EncodedReader",
    "EndlessSampler",
    "Groups",
    "HubDataset",
    "ImageCache",
    "ListFile",
    "Loading",
    "PartitionedDataModule",
    "Preprocessing",
    "Reader",
    "ShardSampler",
    "TorchvisionDataset",
    "UnlabelledFolder",
    "batch_share",
    "check_images",
    "columns_of",
    "groups_of",
    "hold_out",
    "select",
    "workers",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'ftc.data' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
