"""The partition of the head's columns into seen, absent and others: its choice and its files."""

from ftc.partition.class_partition import ClassPartition, Group, PartitionRecord, class_name, without
from ftc.partition.columns import HeadColumns
from ftc.partition.manifest import PartitionManifest, SampleList, digest_samples

__all__ = [
    "ClassPartition",
    "Group",
    "HeadColumns",
    "PartitionManifest",
    "PartitionRecord",
    "SampleList",
    "class_name",
    "digest_samples",
    "without",
]
