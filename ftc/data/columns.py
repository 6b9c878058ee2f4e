"""The mapping of class names to head columns, done once, where data enter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ftc.data.readers import OnError, Reader, Subset, select
from ftc.errors import InputError
from ftc.files import read_text
from ftc.partition import HeadColumns, class_name

IMAGENET = "imagenet-1k"
MODEL = "model"


def imagenet_columns() -> HeadColumns:
    """ImageNet-1k's columns by their first English name.

    WordNet ids are accepted, and so is every English name of one class alone; a name that is the first of a
    class means that class.
    """
    from timm.data import ImageNetInfo

    info = ImageNetInfo(IMAGENET)
    ids = info.label_names()
    every = [[word.strip() for word in info.label_name_to_description(name).split(",")] for name in ids]
    first = [words[0] for words in every]
    names = [f"{word} ({ids[c]})" if first.count(word) > 1 else word for c, word in enumerate(first)]
    words: dict[str, int] = {}
    for choice in ([[word] for word in first], every):
        columns: dict[str, set[int]] = {}
        for column, of_class in enumerate(choice):
            for word in of_class:
                columns.setdefault(word.casefold(), set()).add(column)
        for word, found in columns.items():
            if len(found) == 1:
                words.setdefault(word, *found)
    return HeadColumns(names, {name: column for column, name in enumerate(ids)}, words)


def columns_of_file(path: Path) -> HeadColumns:
    """Read names from a file: a text of one name per line, a JSON list, or a JSON object.

    An object maps names to columns; several names may share a column.

    Raises:
        InputError: no such file, a file of another kind, a name given twice, or columns that leave gaps.
    """
    text = read_text(path, f"data.columns={path}")
    content = _parsed(path, text) if path.suffix == ".json" else text.split("\n")
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        names = [name.strip() for name in content if name.strip()]
        return HeadColumns(names)
    if isinstance(content, dict) and all(type(column) is int for column in content.values()):
        first = {column: name for name, column in reversed(content.items())}
        if sorted(first) == list(range(len(first))):
            return HeadColumns([first[column] for column in range(len(first))], content)
        raise InputError(f"data.columns={path}: its columns leave gaps; number them from 0")
    raise InputError(
        f"data.columns={path}: neither a name a line nor a JSON list of names nor a JSON object of name "
        "and column"
    )


def columns_of_readers(readers: Sequence[Reader]) -> HeadColumns:
    """The data's own class names, in the order of a reader that has them all, else sorted."""
    every = {class_name(name) for reader in readers for name in reader.class_names}
    for reader in readers:
        if set(map(class_name, reader.class_names)) == every:
            return HeadColumns(reader.class_names)
    return HeadColumns(sorted(every))


def by_column(columns: HeadColumns, key: str, reader: Reader, unmapped: OnError = "error") -> Subset:
    """A reader's samples, labelled by head columns.

    Args:
        columns: the head's columns.
        key: the reader's name in messages.
        reader: the samples and their class names.
        unmapped: whether classes that have images but no column are an ``error`` or are left out
            (``skip``).

    Raises:
        InputError: classes without a column, unless they are skipped; the message names all of them.
    """
    found = [columns.column(name) for name in reader.class_names]
    counts = torch.bincount(reader.targets, minlength=len(found)).tolist()
    unknown = [n for n, c, k in zip(reader.class_names, found, counts, strict=True) if c is None and k]
    if unknown and unmapped == "error":
        raise InputError(
            f"data.{key}: the head has no column for {', '.join(unknown)} ({len(unknown)} of "
            f"{len(found)} classes); name them in data.columns, or set data.unmapped=skip"
        )
    table = torch.tensor([-1 if column is None else column for column in found], dtype=torch.int64)
    targets = table[reader.targets]
    rows = (targets >= 0).nonzero()[:, 0]
    return select(reader, rows, targets[rows], columns.names)


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
        return columns_of_readers(readers)
    if choice == MODEL:
        names = of_model()
        if names is None:
            raise InputError(f"data.columns={choice}: the model's weights come without names; give a file")
        return HeadColumns(names)
    return imagenet_columns() if choice == IMAGENET else columns_of_file(Path(choice))
