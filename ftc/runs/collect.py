"""The runs below folders: finished ones, read back, and what there is of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from ftc.cli.sweeps import FINISHED, SWEEP_TABLE, read_rows
from ftc.errors import InputError
from ftc.results import CONFIG_FILE, FILE_NAME
from ftc.runs.finished import FinishedRun


@frozen
class LeftOut:
    """A run without results.

    Attributes:
        name: its folder, or its name in the sweep's table where it has none.
        reason: why, in words: ``unfinished``, ``failed: …``, or what is wrong with its files.
    """

    name: str
    reason: str


@frozen
class Collected:
    """The runs below folders.

    Attributes:
        runs: finished runs, by experiment, number of seen classes and partition seed.
        left_out: the others.
    """

    runs: list[FinishedRun]
    left_out: list[LeftOut]


def collect(folders: Sequence[Path]) -> Collected:
    """Read all runs below folders, each once.

    Raises:
        InputError: no finished run is among them.
    """
    runs: dict[Path, FinishedRun] = {}
    left_out: dict[Path, LeftOut] = {}
    for folder in folders:
        for config in sorted(folder.rglob(CONFIG_FILE)):
            place = config.parent
            if place.resolve() in runs or place.resolve() in left_out or _hidden(place, folder):
                continue
            try:
                if (place / FILE_NAME).is_file():
                    runs[place.resolve()] = FinishedRun.read(place)
                else:
                    left_out[place.resolve()] = LeftOut(str(place), "unfinished")
            except InputError as error:
                left_out[place.resolve()] = LeftOut(str(place), str(error).splitlines()[0])
        for place, reason in _without_results(folder):
            if place.resolve() not in runs:
                left_out[place.resolve()] = LeftOut(str(place), reason)
    if not runs:
        named = ",".join(map(str, folders))
        reasons = "".join(f" ({left.name}: {left.reason})" for left in list(left_out.values())[:1])
        raise InputError(
            f"runs={named}: no finished run below it{reasons}; name a run's folder, or a sweep's"
        )
    # Partitions that were not drawn have no seed; they come first.
    ordered = sorted(
        runs.values(),
        key=lambda run: (run.record.experiment, len(run.partition.seen), run.partition_seed or 0),
    )
    return Collected(ordered, list(left_out.values()))


def _hidden(place: Path, folder: Path) -> bool:
    """Whether a folder is one that a run is being written in, or that it replaces."""
    return any(part.startswith(".") for part in place.relative_to(folder).parts)


def _without_results(folder: Path) -> Iterator[tuple[Path, str]]:
    """Jobs of the sweeps below a folder that did not finish, with the reason that their tables give."""
    for table in sorted(folder.rglob(SWEEP_TABLE)):
        for row in read_rows(table):
            if row["status"] != FINISHED:
                reason = f"{row['status']}: {row['error']}" if row["error"] else row["status"]
                yield table.parent / row["run"], reason
