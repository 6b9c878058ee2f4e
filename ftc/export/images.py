"""The images that a user names: files, folders, patterns, lists (no torch)."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from ftc.data.listing import counted, is_image_name, read_lines, walk_images
from ftc.errors import InputError

# How a list of paths ends.
_LIST = ".txt"
_PATTERN = frozenset("*?[")


class ImageList:
    """The names of images, listed anew at every pass instead of being kept.

    Args:
        given: images; folders, with all images below them; patterns as shells know them, with ``**`` for any
            depth; and lists, text files of a path a line, relative to the list's own folder, after which a
            label may stand.

    Raises:
        InputError: none of them exists, or no image is in one.
    """

    def __init__(self, given: Sequence[str]) -> None:
        self.given = tuple(given)
        for text in self.given:
            if next(self._of(text), None) is None:
                raise InputError(f"images={text}: {self._nothing(text)}")

    def __iter__(self) -> Iterator[str]:
        for text in self.given:
            yield from self._of(text)

    @property
    def count(self) -> int:
        """The number of images."""
        return self._pass[0]

    @property
    def digest(self) -> str:
        """A digest of their names and their order."""
        return self._pass[1]

    @cached_property
    def _pass(self) -> tuple[int, str]:
        count, found = 0, hashlib.sha256()
        for name in self:
            count += 1
            found.update(os.fsencode(name) + b"\n")
        return count, found.hexdigest()

    def _of(self, text: str) -> Iterator[str]:
        path = Path(text)
        if path.is_dir():
            folder = os.path.realpath(path)
            errors: list[OSError] = []
            for name in walk_images(path, "", {folder}, Counter(), errors):
                yield str(path / name)
            if errors:
                raise InputError(f"images={text}: {errors[0].filename} cannot be listed; mend it")
        elif path.is_file() and path.suffix.lower() == _LIST:
            for _, line in read_lines(path):
                yield str(path.parent / _without_label(line))
        elif path.is_file():
            yield text
        elif _PATTERN & set(text):
            # Patterns of pathlib cannot begin at the root.
            names = glob.iglob(text, recursive=True)  # noqa: PTH207
            yield from sorted(name for name in names if Path(name).is_file())

    @staticmethod
    def _nothing(text: str) -> str:
        path = Path(text)
        if path.is_dir():
            others: Counter[str] = Counter()
            list(walk_images(path, "", set(), others, []))
            has = f"; it has {counted(others)}" if others else ""
            return f"no image in this folder{has}; name another"
        if path.is_file():
            return "no path in this list; write one a line"
        return "no such file, folder or pattern; name images"


def _without_label(line: str) -> str:
    """The path of a line of a list, which may end in a label."""
    path, _, label = line.rpartition(" ")
    return path.rstrip() if path and not is_image_name(line) and label.lstrip("-").isdecimal() else line
