"""The mapping of class names to head columns, done once, where data enter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ftc.data.readers import OnError, Reader, Subset, select
from ftc.errors import InputError
from ftc.files import read_text
from ftc.partition import class_name

IMAGENET = "imagenet-1k"
MODEL = "model"


class HeadColumns:
    """The names of a head's columns.

    Args:
        names: one name per column, as reports show it.
        accepted: columns by further names that data may use, such as English words beside WordNet ids.
        added: how many of the columns, the last ones, the data have added to those of the model.

    Raises:
        InputError: two columns of the same name, or a name of two columns.
    """

    def __init__(
        self, names: Iterable[str], accepted: Mapping[str, int] | None = None, added: int = 0
    ) -> None:
        self.names = tuple(map(class_name, names))
        self.added = added
        self._columns = {name: column for column, name in enumerate(self.names)}
        if len(self._columns) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InputError(f"head columns: {twice} names two columns; give each its own name")
        for name, column in (accepted or {}).items():
            if self._columns.setdefault(class_name(name), column) != column:
                raise InputError(f"head columns: {name} names two columns; give each its own name")

    def __len__(self) -> int:
        return len(self.names)

    def column(self, name: str) -> int | None:
        """The column of a class name; None where the head has none."""
        return self._columns.get(class_name(name))

    @classmethod
    def imagenet(cls) -> HeadColumns:
        """ImageNet-1k's columns by WordNet id; a class's first English name is accepted if it is unique."""
        from timm.data import ImageNetInfo

        info = ImageNetInfo(IMAGENET)
        ids = info.label_names()
        words = [info.label_name_to_description(name).split(",")[0] for name in ids]
        unique = {word: column for column, word in enumerate(words) if words.count(word) == 1}
        return cls(ids, unique)

    @classmethod
    def from_file(cls, path: Path) -> HeadColumns:
        """Read names from a file: a text of one name per line, a JSON list, or a JSON object.

        An object maps names to columns; several names may share a column.

        Raises:
            InputError: no such file, a file of another kind, a name given twice, or columns that leave gaps.
        """
        text = read_text(path, f"data.columns={path}")
        content = _parsed(path, text) if path.suffix == ".json" else text.split("\n")
        if isinstance(content, list) and all(isinstance(name, str) for name in content):
            names = [name.strip() for name in content if name.strip()]
            return cls(names)
        if isinstance(content, dict) and all(type(column) is int for column in content.values()):
            first = {column: name for name, column in reversed(content.items())}
            if sorted(first) == list(range(len(first))):
                return cls([first[column] for column in range(len(first))], content)
            raise InputError(f"data.columns={path}: its columns leave gaps; number them from 0")
        raise InputError(
            f"data.columns={path}: neither a name a line nor a JSON list of names nor a JSON object of name "
            "and column"
        )

    @classmethod
    def of_readers(cls, readers: Sequence[Reader]) -> HeadColumns:
        """The data's own class names, in the order of a reader that has them all, else sorted."""
        every = {class_name(name) for reader in readers for name in reader.class_names}
        for reader in readers:
            if set(map(class_name, reader.class_names)) == every:
                return cls(reader.class_names)
        return cls(sorted(every))

    def extended(self, names: Iterable[str]) -> HeadColumns:
        """These columns, then one for each name that they lack, in the order of the names."""
        added = [name for name in dict.fromkeys(map(class_name, names)) if self.column(name) is None]
        return HeadColumns((*self.names, *added), self._columns, len(added))

    def of(self, key: str, reader: Reader, unmapped: OnError = "error") -> Subset:
        """A reader's samples, labelled by head columns.

        Args:
            key: the reader's name in messages.
            reader: the samples and their class names.
            unmapped: whether classes that have images but no column are an ``error`` or are left out
                (``skip``).

        Raises:
            InputError: classes without a column, unless they are skipped; the message names all of them.
        """
        columns = [self.column(name) for name in reader.class_names]
        counts = torch.bincount(reader.targets, minlength=len(columns)).tolist()
        unknown = [n for n, c, k in zip(reader.class_names, columns, counts, strict=True) if c is None and k]
        if unknown and unmapped == "error":
            raise InputError(
                f"data.{key}: the head has no column for {', '.join(unknown)} ({len(unknown)} of "
                f"{len(columns)} classes); name them in data.columns, or set data.unmapped=skip"
            )
        table = torch.tensor([-1 if column is None else column for column in columns], dtype=torch.int64)
        targets = table[reader.targets]
        rows = (targets >= 0).nonzero()[:, 0]
        return select(reader, rows, targets[rows], self.names)


def _parsed(path: Path, text: str) -> Any:
    """JSON content whose objects name nothing twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(name for name, _ in pairs)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise InputError(f"data.columns={path}: {twice[0]!r} is named twice; name it once")
        return dict(pairs)

    try:
        content = json.loads(text, object_pairs_hook=unique)
        # An escape may be half a character, which no text file can hold.
        json.dumps(content, ensure_ascii=False).encode()
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"data.columns={path}: not a file of names ({type(error).__name__})") from error
    return content


def columns_of(
    choice: str | None, readers: Sequence[Reader], of_model: Callable[[], Sequence[str] | None]
) -> HeadColumns:
    """The head's columns that ``data.columns`` asks for.

    Args:
        choice: None for the data's own names; ``imagenet-1k``; ``model`` for the names that come with the
            model's weights; or a file.
        readers: the data.
        of_model: function that returns the model's own names, or None.

    Raises:
        InputError: no such file, a file without names, or a model without names.
    """
    if choice is None:
        return HeadColumns.of_readers(readers)
    if choice == MODEL:
        names = of_model()
        if names is None:
            raise InputError(f"data.columns={choice}: the model's weights come without names; give a file")
        return HeadColumns(names)
    return HeadColumns.imagenet() if choice == IMAGENET else HeadColumns.from_file(Path(choice))
