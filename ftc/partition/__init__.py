"""Which columns of the head are seen, absent and others, and how that choice is made and written down."""

from ftc.partition.class_partition import ClassPartition, Group
from ftc.partition.manifest import SplitManifest, digest_samples

__all__ = ["ClassPartition", "Group", "SplitManifest", "digest_samples"]
