"""The listing of image files: folders at any depth, and list files (no torch)."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from ftc.data.decode import image_suffixes
from ftc.errors import InputError
from ftc.files import printable, read_text

# What may stand around the fields of a line.
_BLANK = " \t"


def read_list(file: Path) -> list[tuple[str, int]]:
    """Read the lines of a list file: path and label, which is the last field.

    Raises:
        InputError: no such file, no line in it, or a line that does not end in a whole number.
    """
    return [(path, int(label)) for path, label in read_fields(file, "path LABEL", r"-?[0-9]{1,18}")]


def read_fields(file: Path, form: str, last: str = ".+") -> list[tuple[str, str]]:
    """Read lines of two fields, a path, which may contain spaces, and another.

    Args:
        file: the file, in UTF-8, see `read_lines`.
        form: what a line is, for messages.
        last: regular expression that the other field matches.

    Raises:
        InputError: no such file, no line in it, or a line of another form.
    """
    lines = []
    for number, line in read_lines(file):
        path, _, field = line.rpartition(" ")
        if not path or not re.fullmatch(last, field):
            raise InputError(f"{file}: line {number} is {line!r}; write one image a line, '{form}'")
        lines.append((path.strip(_BLANK), field))
    if not lines:
        raise InputError(f"{file}: no line in it; write one image a line, '{form}'")
    return lines


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers, without blanks around them.

    Only a line feed ends a line, after a carriage return or not: names of files may have what ends lines
    elsewhere.

    Raises:
        InputError: no such file, or one that is not UTF-8.
    """
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        line = line.removesuffix("\r").strip(_BLANK)
        if line:
            yield number, line


def is_image_name(name: str) -> bool:
    """Whether a name ends as the names of images do."""
    return PurePosixPath(name).suffix.lower() in image_suffixes()


def walk_images(
    root: Path, folder: str, visited: set[str], others: Counter[str], errors: list[OSError]
) -> Iterator[str]:
    """Images at any depth, as posix paths relative to a root; those of a folder in the order of their names.

    Links are followed, and a folder is entered whatever it is called; hidden files and folders are not.

    Args:
        root: the root.
        folder: the folder inside it to begin in.
        visited: real folders that are not entered any more; those that are entered join them.
        others: gets the numbers of other files, by the end of their names.
        errors: gets what was raised by folders that cannot be listed.
    """
    for parent, folders, names in os.walk(root / folder, onerror=errors.append, followlinks=True):
        fresh = {name: os.path.realpath(Path(parent, name)) for name in folders if not name.startswith(".")}
        folders[:] = []
        for name, real in sorted(fresh.items()):
            if real not in visited:
                visited.add(real)
                folders.append(name)
        relative = Path(parent).relative_to(root)
        for name in sorted(names):
            if name.startswith("."):
                continue
            if is_image_name(name):
                yield (relative / name).as_posix()
            else:
                others[PurePosixPath(name).suffix.lower() or "no ending"] += 1


def images_below(
    root: Path, folder: str, visited: set[str]
) -> tuple[list[str], Counter[str], dict[str, str]]:
    """Sorted images at any depth, other files counted by the end of their names, and folders without a list.

    Args:
        root: images are posix paths relative to it; so are folders without a list, with the reason.
        folder, visited: see `walk_images`.
    """
    others: Counter[str] = Counter()
    errors: list[OSError] = []
    files = sorted(walk_images(root, folder, visited, others, errors))
    unlisted = {os.path.relpath(error.filename, root): error.strerror or "" for error in errors}
    return files, others, unlisted


def counted(ignored: Mapping[str, int]) -> str:
    """Counts by ending as text: ``2 .txt, 1 .heic``."""
    return ", ".join(f"{count} {printable(suffix)}" for suffix, count in sorted(ignored.items()))
