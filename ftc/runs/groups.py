"""Runs in groups by what differs in their configurations; partitions and seeds are kept apart from that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from attrs import frozen

from ftc.config.commands import NOT_COMPUTED
from ftc.errors import InputError
from ftc.runs.finished import NUM_SEEN, FinishedRun

METHOD, NAME = "method", "name"

# What repeats a measurement instead of changing what is measured, and what is only shown or stored.
_REPEATS = ("seed", "partition.seed", "partition.seen", "partition.absent", "partition.file", "source.seed")
_SHOWN = (
    *(f"calibration.{name}" for name in ("use", "default", "top_k", "per_class", "probabilities")),
    *("calibration.bootstrap", "paper_repo", "fold", "data.root", "data.num_workers"),
)
# Keys that say most about a run come first; one that they determine is left out.
_FIRST = (NAME, "partition.kind", NUM_SEEN, METHOD)
# Runs that agree in these are evaluated on the same images and classes, so that their rows compare.
_TASK = (NAME, "data", "partition", NUM_SEEN)


@frozen
class Group:
    """Runs that differ in partition and seeds alone.

    Attributes:
        values: the value, as text, of every key in which groups differ.
        runs: the runs.
    """

    values: Mapping[str, str]
    runs: tuple[FinishedRun, ...]

    @property
    def task(self) -> tuple[tuple[str, str], ...]:
        """The values that say what is evaluated; rows of groups with another task do not compare."""
        return tuple((key, text) for key, text in self.values.items() if key.partition(".")[0] in _TASK)


def grouped(runs: Sequence[FinishedRun], by: Sequence[str] = ()) -> list[Group]:
    """Runs in groups, in the order of their values.

    Args:
        runs: the runs.
        by: the keys to group by; none for those in which runs differ, without those that follow from others.

    Raises:
        InputError: no run has a value of a key in ``by``.
    """
    leaves = [{**_described(run), **_asked(run, by)} for run in runs]
    for key in by:
        if not any(key in of_run for of_run in leaves):
            raise InputError(f"by={key}: no run's config.yaml has a value of it; name a key, or {NUM_SEEN}")
    keys = list(by) or _differing(leaves)
    found: dict[tuple[str, ...], list[FinishedRun]] = {}
    for run, of_run in zip(runs, leaves, strict=True):
        found.setdefault(tuple(of_run.get(key, "–") for key in keys), []).append(run)
    places = [_places([values[i] for values in found]) for i in range(len(keys))]
    order = sorted(found, key=lambda values: [of_key[v] for of_key, v in zip(places, values, strict=True)])
    return [Group(dict(zip(keys, values, strict=True)), tuple(found[values])) for values in order]


def told_apart(runs: Sequence[FinishedRun]) -> list[dict[str, str]]:
    """For each run the values in which it differs from others, seeds among them."""
    values = {id(run): group.values for group in grouped(runs) for run in group.runs}
    seeds = [key for key in _REPEATS if len({run.value(key) for run in runs}) > 1]
    return [{**values[id(run)], **{key: run.value(key) or "–" for key in seeds}} for run in runs]


@lru_cache(maxsize=1024)
def _described(run: FinishedRun) -> dict[str, str]:
    """The values that may tell a run from others, as text, by dotted key; a name has its data's behind it."""
    found = dict(_leaves(run.config, ""))
    used = (run.config.get("calibration") or {}).get("use") or []
    kept = tuple(f"calibration.calibrators.{name}." for name in used)
    name = " ".join(found[key] for key in (NAME, "data.label") if found.get(key, "null") != "null")
    return {
        METHOD: run.record.method or found.get("method._target_", "no training").rpartition(".")[-1],
        NUM_SEEN: str(len(run.partition.seen)),
        **{
            key: text
            for key, text in found.items()
            if not _below(key, (*NOT_COMPUTED, *_REPEATS, *_SHOWN))
            and (not key.startswith("calibration.calibrators.") or key.startswith(kept))
        },
        NAME: name,
    }


def _asked(run: FinishedRun, by: Sequence[str]) -> dict[str, str]:
    """The values of keys that are asked for, seeds among them."""
    found = {key: run.value(key) for key in by if key != METHOD}
    return {key: text for key, text in found.items() if text is not None}


def _leaves(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping) and node:
        for name, inner in node.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, "null" if node is None else str(node)


def _below(key: str, roots: Sequence[str]) -> bool:
    return any(key == root or key.startswith(f"{root}.") for root in roots)


def _differing(leaves: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys in which runs differ, in the order of `_FIRST`, but for those that earlier ones determine."""
    everyone = dict.fromkeys([*_FIRST, *(key for of_run in leaves for key in of_run)])
    keys: list[str] = []
    classes = [0] * len(leaves)
    for key in everyone:
        finer = [(known, of_run.get(key)) for known, of_run in zip(classes, leaves, strict=True)]
        numbers = {values: number for number, values in enumerate(dict.fromkeys(finer))}
        if len(numbers) > len(set(classes)):
            keys.append(key)
            classes = [numbers[values] for values in finer]
    return keys


def _places(texts: Sequence[str]) -> dict[str, float]:
    """The place of each value in print: by size where all are numbers, else as they come."""
    try:
        return {text: float(text) for text in texts}
    except ValueError:
        return {text: place for place, text in enumerate(dict.fromkeys(texts))}
