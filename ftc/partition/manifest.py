"""Partition manifests: the names of seen and absent classes, and a digest of every split's samples.

A manifest makes a partition citable: whoever has the data can check that they evaluate on the same samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftc.errors import InputError
from ftc.files import written_whole
from ftc.partition.class_partition import ClassPartition
from ftc.partition.columns import HeadColumns

SCHEMA: Literal[1] = 1


class SampleList(BaseModel):
    """The number of samples of a split, and the digest of their list, see `digest_samples`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    count: int
    sha256: str


class PartitionManifest(BaseModel):
    """A partition in names of classes, with a digest of every split's samples.

    Attributes:
        schema_version: version of the file's schema, which the file calls ``schema``.
        class_names: one name for each head column.
        seen: names of the seen classes.
        absent: names of the absent classes.
        samples: number and digest of samples, by split.
        held_out: names of the training images that were held out to calibrate on.

    Raises:
        InputError: a class name that occurs twice, or seen or absent ones that are not class names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_version: Literal[1] = Field(SCHEMA, alias="schema")
    class_names: tuple[str, ...]
    seen: tuple[str, ...]
    absent: tuple[str, ...]
    samples: dict[str, SampleList] = Field(default_factory=dict)
    held_out: tuple[str, ...] = ()

    def model_post_init(self, context: Any) -> None:
        self.partition(HeadColumns(self.class_names))

    @classmethod
    def of(
        cls,
        partition: ClassPartition,
        class_names: Sequence[str],
        samples: Mapping[str, Mapping[str, Any]] | None = None,
        held_out: Sequence[str] = (),
    ) -> PartitionManifest:
        """The manifest of a partition.

        Args:
            partition: seen, absent and other columns.
            class_names: one name for each head column.
            samples: ``count`` and ``sha256`` by split.
            held_out: names of the training images that are held out.

        Raises:
            InputError: more or fewer names than the head has columns, or a name that occurs twice.
        """
        if len(class_names) != partition.num_classes:
            raise InputError(
                f"class_names: {len(class_names)} for a head of {partition.num_classes}; give one a column"
            )
        return cls(
            class_names=tuple(class_names),
            seen=tuple(class_names[c] for c in partition.seen),
            absent=tuple(class_names[c] for c in partition.absent),
            samples={split: SampleList(**content) for split, content in (samples or {}).items()},
            held_out=tuple(held_out),
        )

    def partition(self, head: HeadColumns) -> ClassPartition:
        """The partition for a head that may have more columns, or columns in another order.

        Args:
            head: the names of that head's columns.

        Raises:
            InputError: seen or absent classes that the head does not have.
        """
        columns = {name: head.column(name) for name in (*self.seen, *self.absent)}
        unknown = [name for name, column in columns.items() if column is None]
        if unknown:
            raise InputError(
                f"the manifest's classes {', '.join(unknown)} are no class names; use its own data"
            )
        seen, absent = (
            [column for name in group if (column := columns[name]) is not None]
            for group in (self.seen, self.absent)
        )
        return ClassPartition(len(head), seen, absent)

    def write(self, path: Path) -> None:
        """Write the manifest, whole or not at all."""
        with written_whole(path) as temporary:
            text = json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> PartitionManifest:
        """Read a manifest.

        Raises:
            InputError: no such file, not a manifest, or one of another schema.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; name a partition manifest") from error
        except ValidationError as error:
            raise InputError(f"{path}: {_fault(error)}; write the manifest again") from error
        except OSError as error:
            raise InputError(f"{path}: not a partition manifest ({type(error).__name__})") from error


def _fault(error: ValidationError) -> str:
    """The first fault of a manifest's content, in one line."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return str(cause)
    if first["loc"] == ("schema",):
        return f"schema {first['input']}, this version reads {SCHEMA}"
    key = ".".join(map(str, first["loc"]))
    return "not a partition manifest" + (f" ({key}: {first['msg'].lower()})" if key else "")


def digest_samples(lines: Iterable[str]) -> str:
    """SHA-256 of the samples of a split.

    Args:
        lines: one line for each sample, such as ``relative/path.jpg LABEL``, without line ends. Their order
            does not count, because the order in which files are read does not change a split. A line that
            occurs twice counts twice.

    Returns:
        64 hexadecimal digits.

    >>> digest_samples(["b.jpg 1", "a.jpg 0"]) == digest_samples(["a.jpg 0", "b.jpg 1"])
    True
    """
    digest = hashlib.sha256()
    for line in sorted(lines):
        # File names that are not UTF-8 reach Python as surrogates.
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
