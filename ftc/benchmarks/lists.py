"""Lists of training and test images: our own, or the paper's official ones."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from ftc.benchmarks.catalogue import PARTS, Benchmark
from ftc.benchmarks.hub_tables import spaceless
from ftc.errors import InputError

# A function from an image's path to its group, None where it is alone.
Group = Callable[[str], str | None]

# The lines of each list file, path and label, by the file's name.
Lists = dict[str, list[tuple[str, int]]]


def own_lists(benchmark: Benchmark, files: Sequence[str], group: Group | None = None) -> Lists:
    """Divide every class's images into training and test images, by the files' paths alone.

    Args:
        benchmark: says which lists there are, and the share of training images.
        files: paths of the images.
        group: function from a path to the group that it belongs to, None where it is alone. A group is on one
            side in all classes and lists, and each side of a class gets a group where there are two.

    Raises:
        InputError: no image is in a group.
    """
    if group is not None and not any(map(group, files)):
        raise InputError(f"--groups: fits no image, such as {files[0]}; give a pattern on these paths")
    classes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for file in files:
        *domain, name, _ = file.split("/")
        classes[domain[0] if domain else benchmark.lists[0], name].append(file)
    labels = _labels(benchmark, {name for _, name in classes})
    is_for_training: dict[str, bool] = {}
    lists: Lists = {f"{prefix}_{part}.txt": [] for prefix in benchmark.lists for part in PARTS}
    for (prefix, name), members in sorted(classes.items()):
        together: dict[str, list[str]] = defaultdict(list)
        for file in members:
            together[(group and group(file)) or file].append(file)
        # Neighbours in a folder are often alike; a hash shuffles them in the same way everywhere.
        shuffled = sorted(together, key=lambda key: hashlib.sha256(key.encode()).digest())
        count = max(1, min(int(benchmark.train_share * len(members) + 0.5), len(members) - 1))
        sides: tuple[list[str], list[str]] = ([], [])
        for key in shuffled:
            train, test = sides
            fits = len(train) + len(together[key]) / 2 <= count
            if key == shuffled[-1] and not (train and test):
                fits = not train
            sides[0 if is_for_training.setdefault(key, fits) else 1].extend(together[key])
        for part, chosen in zip(PARTS, sides, strict=True):
            lists[f"{prefix}_{part}.txt"] += [(file, labels[name]) for file in sorted(chosen)]
    return lists


def check_listable(file: str) -> None:
    """Check that a line of a list can hold an image's path.

    Raises:
        InputError: a path that is not UTF-8, has a line end, or begins or ends with a blank.
    """
    try:
        fits = "\n" not in file and "\0" not in file and file == file.strip(" \t") and file.encode()
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise InputError(
            f"{file!a}: cannot stand in a line of a list; rename the file to UTF-8 text without line ends"
        )


def _labels(benchmark: Benchmark, names: set[str]) -> dict[str, int]:
    """The label of every class: its alphabetical position, or its label in ImageNet-1k."""
    if benchmark.domains:
        return {name: label for label, name in enumerate(sorted(names))}
    from timm.data import ImageNetInfo

    labels = {wnid: label for label, wnid in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    unknown = sorted(names - set(labels))
    if unknown:
        raise InputError(
            f"{benchmark.name}: {unknown[0]} is no class of ImageNet-1k; give the original archive"
        )
    return labels


def official_lists(benchmark: Benchmark, clone: Path) -> Lists:
    """Read the official lists, and shorten their paths to our layout.

    Their paths may start above the class or domain folders.

    Raises:
        InputError: no such folder of lists, or a list that cannot be read.
    """
    from ftc.data.listing import read_list

    folder = clone / benchmark.official
    if not folder.is_dir():
        raise InputError(
            f"--lists {clone}: no {benchmark.official} in it; give a clone of the paper's repository"
        )
    depth = 2 if benchmark.domains else 1

    def ours(path: str) -> str:
        *folders, name = PurePosixPath(path).parts
        return "/".join([*map(spaceless, folders[-depth:]), name])

    names = [f"{prefix}_{part}.txt" for prefix in benchmark.lists for part in PARTS]
    return {name: [(ours(path), label) for path, label in read_list(folder / name)] for name in names}


def check_listed(benchmark: Benchmark, lists: Lists, files: set[str]) -> None:
    """Check that every listed image is among the files.

    Raises:
        InputError: a listed image is missing; the message names the first one.
    """
    for name, lines in lists.items():
        missing = [path for path, _ in lines if path not in files]
        if missing:
            raise InputError(
                f"{name}: {missing[0]} is not among the images ({len(missing)} of {len(lines)} lines); "
                f"give the original, from {benchmark.origin}, as --from"
            )
