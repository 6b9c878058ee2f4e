"""Groups of images that stay on one side of every split: frames of a video, crops of a photo."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from ftc.data.listing import read_fields
from ftc.data.readers import Reader, sample_name
from ftc.errors import InputError
from ftc.files import existing_file

# The group of every sample of a reader; None for a sample that is alone.
Groups = Sequence[str | None]


def groups_of(choice: str | None, readers: Mapping[str, Reader]) -> dict[str, Groups | None]:
    """The groups of every reader's samples.

    Args:
        choice: a regular expression on names, whose groups (or whole match) name the group; a file of lines
            ``NAME GROUP``; or None for the readers' own.
        readers: readers by key.

    Returns:
        Groups by key; None for a reader without any.

    Raises:
        InputError: a regular expression or a file that fits no sample.
    """
    if choice is None:
        return {key: getattr(reader, "groups", None) for key, reader in readers.items()}
    find = group_finder(choice)
    found: dict[str, Groups | None] = {}
    for key, reader in readers.items():
        groups = [find(sample_name(reader, i)) for i in range(len(reader.targets))]
        found[key] = groups if any(group is not None for group in groups) else None
    if all(groups is None for groups in found.values()):
        names = {key: sample_name(reader, 0) for key, reader in readers.items() if len(reader.targets)}
        raise InputError(
            f"data.groups={choice}: fits no image, such as {next(iter(names.values()), 'none at all')}; give "
            "a regular expression on these names, or a file of lines 'NAME GROUP'"
        )
    return found


def group_finder(choice: str, key: str = "data.groups") -> Callable[[str], str | None]:
    """A function from a sample's name to its group, None where it has none; see `groups_of`.

    Args:
        choice: a regular expression or a file.
        key: the name of the choice in messages.

    Raises:
        InputError: neither a file nor a regular expression, or a file that contradicts itself.
    """
    file = existing_file(choice)
    if file is not None:
        named: dict[str, str] = {}
        for written, group in read_fields(file, "NAME GROUP"):
            name = posixpath.normpath(written)
            if named.setdefault(name, group) != group:
                raise InputError(
                    f"{key}={choice}: {name} is in group {named[name]} and in group {group}; leave one out"
                )
        return lambda name: named.get(posixpath.normpath(name))
    try:
        pattern = re.compile(choice)
    except re.error as error:
        raise InputError(
            f"{key}={choice}: no such file, and no regular expression ({error}); give one of them"
        ) from error

    def matched(name: str) -> str | None:
        match = pattern.search(name)
        if match is None:
            return None
        return "\t".join(part or "" for part in match.groups()) if pattern.groups else match[0]

    return matched


def notes_on_groups(groups: Mapping[str, Groups | None]) -> Iterator[str]:
    """Lines on the groups that readers have, and on those of training images that are evaluated on, too."""
    for key, found in groups.items():
        if found is not None:
            sizes = Counter(group for group in found if group is not None)
            alone = sum(group is None for group in found)
            line = (
                f"data.groups: {len(sizes):,} groups of {min(sizes.values())} to {max(sizes.values())} images"
            )
            others = f", and {alone} images alone" if alone else ""
            yield f"{line} in data.readers.{key}{others}"
    trained = set(groups.get("train") or ()) - {None}
    for key in ("val", "test", "pool"):
        shared = sum(group in trained for group in groups.get(key) or ())
        if shared:
            yield (
                f"data.groups: {shared} images of data.readers.{key} are of groups that are trained on; what "
                "is measured on them is too good"
            )
