"""Tables of methods: their models, methods × calibrators, and paired differences to plain fine-tuning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from attrs import evolve

from ftc.errors import InputError
from ftc.finetune import Full
from ftc.reporting.names import stage_title
from ftc.reporting.table import Cell, Grid, mean, mean_difference
from ftc.results import METRICS
from ftc.runs.finished import NUM_SEEN, FinishedRun

# The columns of the table of models, at γ = 0.
_SCORES = ("acc_all", "acc_seen", "acc_absent", "acc_absent_within", "harmonic", "ausuc", "ncm_acc_all")


def method_tables(runs: Sequence[FinishedRun], by: Sequence[str]) -> Iterator[Grid]:
    """Tables of the methods of runs that share a criterion, by experiment.

    Methods come in the order of their mean score with the oracle's γ*, worst last; a method has one run for
    each partition and target. Scores in percent, means over runs. There are differences where full
    fine-tuning has a row of its own.

    Args:
        runs: the runs.
        by: keys in which the runs of a method may differ, beside the method; they become part of its name.

    Raises:
        InputError: two runs are of one method, partition, target and seed.
    """
    for experiment in dict.fromkeys(run.record.experiment for run in runs):
        found = _by_method([run for run in runs if run.record.experiment == experiment], by)
        counts = sorted({len(of_method) for of_method in found.values()})
        number = " to ".join(map(str, (counts[0], *counts[1:][-1:]))) + (" run" if counts == [1] else " runs")
        yield _models(f"{experiment}: models at γ = 0, mean of {number}", found)
        criterion = METRICS[runs[0].record.criterion]
        yield _calibrated(f"{experiment}: {criterion} (H) by method and calibrator", found)
        if Full.title in found:
            title = f"{experiment}: {criterion} minus that of {Full.title}, paired, ± standard error"
            yield _differences(title, found)


# The runs of each method, by what they have in common with a run of another method.
_Runs = dict[str, dict[str, FinishedRun]]


def _by_method(runs: Sequence[FinishedRun], by: Sequence[str]) -> _Runs:
    varying = [key for key in by if key != NUM_SEEN and len({run.value(key) for run in runs}) > 1]
    found: _Runs = {}
    for run in runs:
        method = run.record.method or "no training"
        label = ", ".join([method, *(f"{key.rpartition('.')[-1]}={run.value(key)}" for key in varying)])
        others = found.setdefault(label, {})
        # Partitions of one seed differ by the number of their seen classes.
        other = others.setdefault(f"{run.record.name}, {run.value(NUM_SEEN)} seen", run)
        if other is not run:
            raise InputError(
                f"{run.folder} and {other.folder} are both of {label} on {run.record.name}; name the key in "
                "which they differ in by=[…], or move one away"
            )
    return dict(sorted(found.items(), key=lambda item: -fmean(run.oracle or 0.0 for run in item[1].values())))


def _models(title: str, found: _Runs) -> Grid:
    header = ("method", "trained", "s", *(METRICS[name] for name in _SCORES))
    lines: list[tuple[Cell | str, ...]] = []
    for method, runs in found.items():
        trained = {run.record.trainable for run in runs.values()}
        number = trained.pop() if len(trained) == 1 else None
        seconds = fmean(run.record.timing.get("fine_tune", 0.0) for run in runs.values())
        scores = (_percent(_scores(runs.values(), "fine_tuned", name)) for name in _SCORES)
        lines.append((method, "–" if number is None else f"{number:,}", f"{seconds:.0f}", *scores))
    runs = next(iter(found.values()))
    scores = (_percent(_scores(runs.values(), "source", name)) for name in _SCORES)
    lines.append(("source model", "", "", *scores))
    return Grid.of_texts(title, header, lines)


def _titles(found: _Runs) -> dict[str, str]:
    """Titles of γ = 0 and of all calibrators, by name, in the order of the tables."""
    runs = [run for of_method in found.values() for run in of_method.values()]
    rows = [(name, stage) for run in runs for name, stage in run.record.rows() if name != "source"]
    return {name: "γ = 0" if stage.lane is None else stage_title(name, stage) for name, stage in rows}


def _scores(runs: Iterable[FinishedRun], name: str, score: str | None = None) -> list[float | None]:
    """A score of each run's stage, by default that of the run's criterion; None where there is none."""
    stages = [(run, dict(run.record.rows()).get(name)) for run in runs]
    return [
        None if stage is None else stage.metrics.get(score or run.record.criterion) for run, stage in stages
    ]


def _calibrated(title: str, found: _Runs) -> Grid:
    titles = _titles(found)
    lines: list[tuple[Cell | str, ...]] = []
    for method, runs in found.items():
        of_runs = list(runs.values())
        pairs = (
            (_percent(_scores(of_runs, name)), _percent(_scores(of_runs, name, "harmonic")))
            for name in titles
        )
        lines.append((method, *(_beside(best, both) for best, both in pairs)))
    return Grid.of_texts(title, ("method", *titles.values()), lines)


def _differences(title: str, found: _Runs) -> Grid:
    titles, plain = _titles(found), found[Full.title]
    lines: list[tuple[Cell | str, ...]] = []
    for method, runs in found.items():
        common = [key for key in runs if key in plain]
        if method == Full.title or not common:
            continue
        cells = []
        for name in titles:
            own, others = (_scores([of[key] for key in common], name) for of in (runs, plain))
            pairs = zip(own, others, strict=True)
            points = [100 * (x - y) for x, y in pairs if x is not None and y is not None]
            cells.append(mean_difference(points) if points else "–")
        lines.append((method, *cells))
    return Grid.of_texts(title, ("method", *titles.values()), lines)


def _beside(best: Cell, both: Cell) -> Cell:
    """A score with H behind it."""
    return best if best.text == "–" else evolve(best, text=f"{best.text} ({both.text})")


def _percent(values: Sequence[float | None]) -> Cell:
    known = [100 * value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else Cell("–")
