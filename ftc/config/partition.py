"""The partition group: rules that choose seen and absent classes."""

from __future__ import annotations

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictInt, model_validator

from ftc.config.node import Count, Natural, Node, Seed
from ftc.errors import InputError, require
from ftc.partition import ClassPartition, HeadColumns, PartitionManifest, without
from ftc.partition.published import label_names, published_lists, published_order


@dataclass(frozen=True)
class PartitionContext:
    """The facts that a choice of classes may depend on.

    Attributes:
        head: the names of the head's columns.
        trained: columns with training images in the target domain.
        evaluated: columns with test images.
        samples: count and digest of every split's samples, as in a manifest.
        class_means: class means (C, D) of the source model's features, for rules ``by_source_model``;
            else None.
    """

    head: HeadColumns
    trained: tuple[int, ...]
    evaluated: tuple[int, ...]
    samples: Mapping[str, Mapping[str, Any]]
    class_means: Any = None

    @property
    def num_classes(self) -> int:
        """The number C of head columns."""
        return len(self.head)


class PartitionRule(Node, ABC):
    """A way to choose S and U.

    Attributes:
        by_source_model: whether the rule looks at the source model, whose stage then runs first.
    """

    by_source_model: ClassVar[bool] = False

    @abstractmethod
    def build(self, context: PartitionContext) -> ClassPartition:
        """Choose the partition.

        Raises:
            InputError: the rule does not fit the data; the message names key and value.
        """

    @abstractmethod
    def label(self) -> str:
        """The part of a run's name that stands for the partition."""

    def identity(self) -> dict[str, Any]:
        """Everything that the partition depends on, as JSON types; files by content, not by path."""
        return self.model_dump()

    def check(self, num_classes: int | None) -> None:
        """Check early what does not depend on the data.

        Raises:
            InputError: a value is wrong; the message names key and value.
        """


class _Drawn(PartitionRule):
    seed: Seed
    num_seen: Count | None
    num_absent: Natural | None

    def label(self) -> str:
        return f"p{self.seed}"

    @property
    def size(self) -> int:
        """The number of seen classes.

        Raises:
            InputError: ``num_seen`` is not given.
        """
        if self.num_seen is None:
            raise InputError("partition.num_seen: missing; give it a value")
        return self.num_seen

    def check(self, num_classes: int | None) -> None:
        if self.size and num_classes is not None:
            self._draw(range(num_classes), num_classes)

    def _draw(self, among: Sequence[int], num_classes: int) -> ClassPartition:
        try:
            return ClassPartition.random(num_classes, self.size, self.num_absent, self.seed, among)
        except InputError as error:
            raise InputError(f"partition.num_seen={self.num_seen}: {error}") from error


class RandomPartition(_Drawn):
    """Seen and absent classes drawn among those with training images, or named."""

    kind: Literal["random"]
    seen: list[StrictInt | str] | None
    absent: list[StrictInt | str] | None

    def build(self, context: PartitionContext) -> ClassPartition:
        if self.seen is None:
            return self._draw(context.trained, context.num_classes)
        return _named(context.head, self.seen, self.absent)

    def check(self, num_classes: int | None) -> None:
        if self.seen is None and self.absent is not None:
            raise InputError(f"partition.absent={self.absent}: goes with partition.seen; name the seen too")
        if self.seen is None:
            super().check(num_classes)
        elif num_classes is not None and all(isinstance(c, int) for c in [*self.seen, *(self.absent or [])]):
            _named(_numbered(num_classes), self.seen, self.absent)


class NamedPartition(Node):
    """Seen and absent columns listed by number, for saved logits, which have no class names."""

    seen: list[StrictInt]
    absent: list[StrictInt] | None

    def of_width(self, num_classes: int) -> ClassPartition:
        """The partition of a head of ``num_classes`` columns.

        Raises:
            InputError: the columns make no partition; the message names key and value.
        """
        return _named(_numbered(num_classes), self.seen, self.absent)


class SemanticPartition(_Drawn):
    """Seen classes that are near to the absent ones or far from them, by the source model's class means."""

    by_source_model = True
    kind: Literal["near", "far"]

    @model_validator(mode="after")
    def _can_cluster(self) -> SemanticPartition:
        require("sklearn", "semantic", f"partition={self.kind}")
        return self

    def build(self, context: PartitionContext) -> ClassPartition:
        from ftc.partition.semantic import semantic_partition

        self._draw(context.trained, context.num_classes)
        return semantic_partition(
            self.kind,
            context.class_means,
            context.trained,
            context.num_classes,
            self.size,
            self.num_absent,
            self.seed,
        )

    def label(self) -> str:
        return f"{self.kind}{self.seed}"


class Published(Node):
    """The place of a benchmark's class order in the paper's released repository.

    Attributes:
        benchmark: folder below ``asset/``.
        lists: glob of the list files that name the classes.
        order: key of the order to use.
        orders: key → name of the published list, see `ftc.partition.published.published_order`.
    """

    benchmark: Literal["OfficeHome", "ImageNet"]
    lists: str
    order: str
    orders: dict[str, str]


class PaperPartition(PartitionRule):
    """The paper's published class order: seen = its first classes, absent = its last."""

    kind: Literal["paper"]
    repo: str | None
    num_seen: Count
    num_absent: Natural
    published: Published

    def build(self, context: PartitionContext) -> ClassPartition:
        order = self._order()
        folders = label_names(published_lists(self._repo, self.published.benchmark), self.published.lists)
        columns = {label: context.head.column(name) for label, name in folders.items()}
        unknown = [label for label in order if columns.get(label) is None]
        if unknown:
            name = folders.get(unknown[0], "no name in its lists")
            raise InputError(
                f"paper_repo={self.repo}: class {unknown[0]} ({name}) has no head column; "
                "is it of the same benchmark?"
            )
        ids = [column for label in order if (column := columns[label]) is not None]
        absent = ids[len(ids) - self.num_absent :]
        return ClassPartition(context.num_classes, ids[: self.num_seen], absent)

    def check(self, num_classes: int | None) -> None:
        size = len(self._order())
        if self.num_seen + self.num_absent > size:
            raise InputError(
                f"partition.num_seen={self.num_seen}: with partition.num_absent={self.num_absent} more than "
                f"the published order's {size} classes"
            )

    def label(self) -> str:
        return "paper"

    def identity(self) -> dict[str, Any]:
        return {**self.model_dump(exclude={"repo", "published"}), "order": self._order()}

    @property
    def _repo(self) -> Path:
        if self.repo is None:
            raise InputError("paper_repo=null: give the folder of your clone of the paper's repository")
        return Path(self.repo)

    def _order(self) -> tuple[int, ...]:
        names = self.published.orders
        if self.published.order not in names:
            raise InputError(
                f"partition=paper: no class order was published for {self.published.order}; choose from "
                f"{', '.join(names)}, or another partition"
            )
        return published_order(self._repo, names[self.published.order])


class FilePartition(PartitionRule):
    """The partition of a manifest, such as an earlier run's ``partition.json``."""

    kind: Literal["file"]
    path: str
    samples: Literal["check", "ignore"]

    def build(self, context: PartitionContext) -> ClassPartition:
        manifest = self._manifest()
        if self.samples == "check":
            for split, expected in manifest.samples.items():
                found = context.samples.get(split)
                if found is not None and dict(found) != expected.model_dump():
                    raise InputError(
                        f"partition.path={self.path}: its {split} samples differ ({expected.count}, "
                        f"here {found['count']}); use the same lists, or set partition.samples=ignore"
                    )
        return manifest.partition(context.head)

    def check(self, num_classes: int | None) -> None:
        self._manifest()

    def label(self) -> str:
        return "file"

    def identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "manifest": self._manifest().model_dump(mode="json", by_alias=True, exclude={"held_out"}),
        }

    def _manifest(self) -> PartitionManifest:
        return PartitionManifest.read(Path(self.path))


class DataPartition(PartitionRule):
    """The partition that the data imply: seen = the classes with training images."""

    kind: Literal["data"]
    absent: Literal["rest", "evaluated"]

    def build(self, context: PartitionContext) -> ClassPartition:
        asked_for = range(context.num_classes) if self.absent == "rest" else context.evaluated
        absent = without(asked_for, context.trained)
        return ClassPartition(context.num_classes, context.trained, absent)

    def label(self) -> str:
        return "data"


PartitionConfig = Annotated[
    RandomPartition | SemanticPartition | PaperPartition | FilePartition | DataPartition,
    Field(discriminator="kind"),
]


def _numbered(num_classes: int) -> HeadColumns:
    """Columns that are named by their number."""
    return HeadColumns(map(str, range(num_classes)))


def _named(
    head: HeadColumns, seen: Sequence[int | str], absent: Sequence[int | str] | None
) -> ClassPartition:
    values = {"seen": seen, "absent": absent}
    chosen = _columns("seen", head, seen)
    rest = without(range(len(head)), chosen) if absent is None else _columns("absent", head, absent)
    try:
        return ClassPartition(len(head), chosen, rest)
    except InputError as error:
        key = "absent" if str(error).startswith("absent") else "seen"
        reason = str(error).removeprefix(f"{key}: ")
        raise InputError(f"partition.{key}={values[key]}: {reason}") from error


def _columns(key: str, head: HeadColumns, classes: Sequence[int | str]) -> list[int]:
    """Head columns of numbers, names, and texts such as ``column:3``.

    A number is a column, and where there is no such column, a class whose name looks like that number.

    Raises:
        InputError: no such class, or a number that is one class's column and another's name.
    """
    names = head.names
    columns = []
    for value in classes:
        if isinstance(value, int):
            named = head.column(str(value))
            if named is None:
                named = value
            if named != value and 0 <= value < len(names):
                raise InputError(
                    f"partition.{key}={value}: column {value} is the class {names[value]}, but the class "
                    f"{value} is column {named}; write column:{value} for the column, or quote the name: "
                    f'"{value}"'
                )
            columns.append(named)
        elif (column := head.column(value)) is not None:
            columns.append(column)
        elif re.fullmatch(r"column:\d+", value):
            columns.append(int(value.removeprefix("column:")))
        else:
            near = difflib.get_close_matches(value, names, n=1)
            hint = f" did you mean {near[0]}?" if near else ""
            shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            raise InputError(f"partition.{key}={value}: no such class;{hint} choose from {shown}")
    return columns
