"""Which columns of the head are seen, absent and others, and how that choice is made and written down."""

from ftc.partition.class_partition import ClassPartition, Group, PartitionRecord
from ftc.partition.manifest import PartitionManifest, digest_samples

__all__ = ["ClassPartition", "Group", "PartitionManifest", "PartitionRecord", "digest_samples"]
