"""Readers of images, samplers and the Lightning data module that partitions by class."""

from ftc.data.datamodule import PartitionedDataModule
from ftc.data.readers import ArrayReader, Reader, UnlabelledFolder
from ftc.data.sampler import EndlessSampler, ShardSampler
from ftc.data.transforms import build_transforms

__all__ = [
    "ArrayReader",
    "EndlessSampler",
    "PartitionedDataModule",
    "Reader",
    "ShardSampler",
    "UnlabelledFolder",
    "build_transforms",
]
