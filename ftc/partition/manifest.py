"""Split manifests: which classes are seen and absent, by name, and which samples every split has (no torch).

A manifest makes a split citable: whoever has the data can check that they evaluate on the same samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftc.errors import InputError
from ftc.files import written_whole
from ftc.partition.class_partition import ClassPartition

SCHEMA = 1


@dataclass(frozen=True)
class SplitManifest:
    """A partition of classes, by name, with a digest of every split's samples.

    Args:
        class_names: one a head column.
        seen: names of the seen classes.
        absent: names of the absent classes.
        samples: split → ``count`` and ``sha256``, see `digest_samples`.

    Raises:
        InputError: a class name that stands twice, or seen and absent ones that are not class names.
    """

    class_names: tuple[str, ...]
    seen: tuple[str, ...]
    absent: tuple[str, ...]
    samples: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.partition(self.class_names)

    @classmethod
    def of(
        cls,
        partition: ClassPartition,
        class_names: Sequence[str],
        samples: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> SplitManifest:
        """The manifest of a partition.

        Args:
            partition: seen, absent and other columns.
            class_names: one a head column.
            samples: split → ``count`` and ``sha256``.

        Raises:
            InputError: as many names as the head has columns are wanted, each once.
        """
        if len(class_names) != partition.num_classes:
            raise InputError(
                f"class_names: {len(class_names)} for a head of {partition.num_classes}; give one a column"
            )
        return cls(
            tuple(class_names),
            tuple(class_names[c] for c in partition.seen),
            tuple(class_names[c] for c in partition.absent),
            {split: dict(content) for split, content in (samples or {}).items()},
        )

    def partition(self, class_names: Sequence[str]) -> ClassPartition:
        """The partition of a head that may have its columns in another order, or more of them.

        Args:
            class_names: one a column of that head.

        Raises:
            InputError: seen or absent classes that the head does not have, or a name of two columns.
        """
        columns = {name: column for column, name in enumerate(class_names)}
        if len(columns) < len(class_names):
            twice = next(name for column, name in enumerate(class_names) if columns[name] != column)
            raise InputError(f"class_names: {twice} names two columns; give each its own name")
        unknown = [name for name in (*self.seen, *self.absent) if name not in columns]
        if unknown:
            raise InputError(
                f"the split's classes {', '.join(unknown)} are no class names; use the data it was made for"
            )
        seen, absent = ([columns[name] for name in group] for group in (self.seen, self.absent))
        return ClassPartition(len(class_names), seen, absent)

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        return {
            "schema": SCHEMA,
            "class_names": list(self.class_names),
            "seen": list(self.seen),
            "absent": list(self.absent),
            "samples": self.samples,
        }

    def write(self, path: Path) -> None:
        """Write the manifest, whole."""
        with written_whole(path) as temporary:
            text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> SplitManifest:
        """Read a manifest.

        Raises:
            InputError: no such file, not a manifest, or one of another schema.
        """
        again = "write the manifest again"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; name a split manifest") from error
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: not a split manifest ({type(error).__name__}); {again}") from error
        if not isinstance(content, dict) or "schema" not in content:
            raise InputError(f"{path}: not a split manifest; name one such as a run's split.json")
        if content["schema"] != SCHEMA:
            raise InputError(f"{path}: schema {content['schema']}, this version reads {SCHEMA}; {again}")
        names: dict[str, Any] = {key: content.get(key) for key in ("class_names", "seen", "absent")}
        for key, value in names.items():
            if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                raise InputError(f"{path}: {key} is no list of class names; {again}")
        samples = content.get("samples")
        if not isinstance(samples, dict) or not all(map(_is_digest, samples.values())):
            raise InputError(f"{path}: samples is not count and sha256 of every split; {again}")
        try:
            return cls(**{key: tuple(value) for key, value in names.items()}, samples=samples)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def digest_samples(lines: Iterable[str]) -> str:
    """SHA-256 of the samples of a split.

    Args:
        lines: one a sample, such as ``relative/path.jpg LABEL``, without line ends, in any order: they are
            sorted, because the order in which files are read makes no other split. A line that stands
            twice counts twice.

    Returns:
        64 hexadecimal digits.

    >>> digest_samples(["b.jpg 1", "a.jpg 0"]) == digest_samples(["a.jpg 0", "b.jpg 1"])
    True
    """
    digest = hashlib.sha256()
    for line in sorted(lines):
        # File names that are no UTF-8 reach Python as surrogates.
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def _is_digest(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and content.keys() == {"count", "sha256"}
        and type(content["count"]) is int
        and isinstance(content["sha256"], str)
    )
