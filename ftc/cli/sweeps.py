"""A sweep's table, to which every job adds its row as it ends, and the report at the end (no torch)."""

from __future__ import annotations

import csv
import itertools
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ftc.errors import InputError
from ftc.files import damage, lock_beside, written_whole

SWEEP_TABLE = "sweep.csv"
FINISHED = "finished"
# The first columns of the table; swept values and scalars follow.
_HEAD = ("run", "status", "error")


@dataclass(frozen=True)
class Sweep:
    """Jobs that share a folder and a table there, ``sweep.csv``.

    Attributes:
        folder: the sweep's folder.
        jobs: overrides of the jobs that are known beforehand, by the name of their run folder.
        objective: the scalar that a sweeper maximises, or None.
    """

    folder: Path
    jobs: Mapping[str, Sequence[str]]
    objective: str | None = None

    def begin(self) -> None:
        """Write a row for every job, in order; finished jobs keep theirs."""
        waiting = {name: first_cells(name, "waiting", overrides) for name, overrides in self.jobs.items()}
        with _table(self.folder / SWEEP_TABLE) as rows:
            known = dict(rows)
            rows.clear()
            rows |= {**waiting, **known}
            rows |= {name: waiting[name] for name in waiting if rows[name]["status"] != FINISHED}

    def report(self) -> bool:
        """Print the table, and a line on stderr for each unfinished job.

        Returns:
            Whether all jobs finished.
        """
        # Rich takes time to import, and only the end of a sweep needs it.
        from ftc.reporting.tables import console, sweep_table

        rows = read_rows(self.folder / SWEEP_TABLE)
        swept = swept_keys(rows)
        out = console()
        out.print(sweep_table(rows, swept, self.objective, out.width), soft_wrap=False)
        out.print(f"Sweep folder: {self.folder}")
        failed = [row for row in rows if row["status"] != FINISHED]
        for row in failed:
            job = " ".join(f"{key}={row[key]}" for key in swept if row[key]) or row["run"]
            why = (
                row["error"]
                or "no result: its process was lost or is still running; run the same command again"
            )
            print(f"ftc: error: job {job}: {why}", file=sys.stderr)
        return not failed


def leads() -> bool:
    """Whether this process writes: the first of those that do one job together."""
    ranks = (os.environ[key] for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if key in os.environ)
    return int(next(ranks, 0)) == 0


@contextmanager
def job_row(folder: Path, name: str, overrides: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Write a job's row into the sweep's table as soon as the job ends, with success or an error.

    Errors are not raised again, so that the other jobs go on. The traceback of an error other than
    `InputError` is written beside the table.

    Args:
        folder: the sweep's folder.
        name: name of the job's run folder.
        overrides: the job's overrides, ``key=value``.

    Yields:
        A dict for the scalars that the table lists.
    """
    row: dict[str, Any] = {}
    status, message = FINISHED, ""
    trace = folder / f"{name}.error.txt"
    try:
        yield row
    except Exception as error:
        status, message = "failed", " ".join(str(error).split())
        if not isinstance(error, InputError):
            trace.write_text(traceback.format_exc())
            message = f"{type(error).__name__}: {message} ({trace})"
    except BaseException as error:
        status, message = "interrupted", type(error).__name__
        raise
    else:
        trace.unlink(missing_ok=True)
    finally:
        if leads():
            add_row(folder / SWEEP_TABLE, {**first_cells(name, status, overrides, message), **row})


def first_cells(name: str, status: str, overrides: Sequence[str], error: str = "") -> dict[str, str]:
    """The first cells of a job's row: run, status, error and its overrides."""
    cells = dict(zip(_HEAD, (name, status, error), strict=True))
    for override in overrides:
        key, _, value = override.partition("=")
        cells[key.lstrip("+~")] = value
    return cells


def swept_keys(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The overrides in which jobs differ; a column with a slash in its name is a scalar."""
    keys = [key for key in (rows[0] if rows else ()) if "/" not in key and key not in _HEAD]
    return [key for key in keys if len({row[key] for row in rows}) > 1]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none if the file does not exist."""
    if not path.is_file():
        return []
    with damage(path), path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, strict=True))
        if any(row.keys() < {*_HEAD} or None in row.values() for row in rows):
            raise ValueError("cells are missing")
        return rows


def add_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a table, or replace the row of the same run; safe when several jobs end at once."""
    with _table(path) as rows:
        rows[row["run"]] = row


@contextmanager
def _table(path: Path) -> Iterator[dict[str, Mapping[str, Any]]]:
    """The rows of a table by run, to be changed in the block; a lock keeps other processes out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock_beside(path), mode=0o666):
        rows: dict[str, Mapping[str, Any]] = {row["run"]: row for row in read_rows(path)}
        yield rows
        fields = list(dict.fromkeys(itertools.chain.from_iterable(rows.values())))
        with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fields, restval="")
            writer.writeheader()
            writer.writerows(rows.values())
