"""Readers of images, samplers, and the Lightning data module with its class partition."""

from ftc.data.cache import ImageCache
from ftc.data.checks import Checked, check_images
from ftc.data.columns import HeadColumns, columns_of
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
    "HeadColumns",
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
