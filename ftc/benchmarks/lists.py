"""Lists of training and test images: our own, or the paper's official ones."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ftc.benchmarks.catalogue import PARTS, Benchmark
from ftc.benchmarks.hub_tables import spaceless
from ftc.errors import InputError

# The lines of each list file, path and label, by the file's name.
Lists = dict[str, list[tuple[str, int]]]


def own_lists(benchmark: Benchmark, files: Sequence[str]) -> Lists:
    """Divide every class's images into training and test images, by the files' paths alone."""
    classes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for file in files:
        *domain, name, _ = file.split("/")
        classes[domain[0] if domain else benchmark.lists[0], name].append(file)
    labels = _labels(benchmark, {name for _, name in classes})
    lists: Lists = {f"{prefix}_{part}.txt": [] for prefix in benchmark.lists for part in PARTS}
    for (prefix, name), members in sorted(classes.items()):
        # Neighbours in a folder are often alike; a hash shuffles them in the same way everywhere.
        members = sorted(members, key=lambda file: hashlib.sha256(file.encode()).digest())
        count = max(1, min(int(benchmark.train_share * len(members) + 0.5), len(members) - 1))
        for part, chosen in zip(PARTS, (members[:count], members[count:]), strict=True):
            lists[f"{prefix}_{part}.txt"] += [(file, labels[name]) for file in sorted(chosen)]
    return lists


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
    from ftc.data.folders import read_list

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
