"""The names of a head's columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ftc.errors import InputError
from ftc.partition.class_partition import class_name


class HeadColumns:
    """The names of a head's columns, and the columns of names.

    Args:
        names: one name per column, as reports show it.
        accepted: columns by further names that data and configurations may use.
        words: columns by words of a language, in whose place data may have capitals, and ``_`` for a space.
        added: how many of the columns, the last ones, the data have added to those of the model.

    Raises:
        InputError: two columns of the same name, or a name of two columns.
    """

    def __init__(
        self,
        names: Iterable[str],
        accepted: Mapping[str, int] | None = None,
        words: Mapping[str, int] | None = None,
        added: int = 0,
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
        self._words = {_written(word): column for word, column in (words or {}).items()}

    def __len__(self) -> int:
        return len(self.names)

    def column(self, name: str) -> int | None:
        """The column of a class name; None where the head has none."""
        return self._columns.get(class_name(name), self._words.get(_written(name)))

    def extended(self, names: Iterable[str]) -> HeadColumns:
        """These columns, then one for each name that they lack, in the order of the names."""
        added = [name for name in dict.fromkeys(map(class_name, names)) if self.column(name) is None]
        return HeadColumns((*self.names, *added), self._columns, self._words, len(added))


def _written(word: str) -> str:
    return class_name(word).casefold().replace("_", " ")
