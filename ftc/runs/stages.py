"""Stages of a run: each is timed, and its result is kept, so that an interrupted run can go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from ftc.config.commands import TrainConfig
from ftc.errors import InputError
from ftc.files import DamagedError
from ftc.runs.folder import RunFolder
from ftc.runs.processes import leads


class Stages:
    """The stages of one run.

    Args:
        folder: the run folder.
        out: console for messages.

    Attributes:
        timing: seconds by stage, interrupted runs included.
    """

    def __init__(self, folder: RunFolder, out: Console) -> None:
        self.folder = folder
        self.out = out
        self.timing: dict[str, float] = {}
        self._finished: set[str] = set()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a stage."""
        start = time.perf_counter()
        yield
        self.timing[name] = time.perf_counter() - start

    def go_on(self) -> None:
        """Use the results of the interrupted run in the folder."""
        self._finished = self.folder.finished_stages()
        if leads():
            self.folder.go_on()

    def once(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A stage's result, of tensors and plain types: from an interrupted run, or computed now and kept."""
        if name in self._finished:
            try:
                kept = self.folder.stage_result(name)
            except DamagedError:
                self.out.print(f"What the stage {name} had found is damaged; it is done again")
            else:
                self.timing[name] = kept["seconds"]
                return kept["result"]
        with self.timed(name):
            result = compute()
        if leads():
            self.folder.keep_stage(name, {"result": result, "seconds": self.timing[name]})
        return result


def goes_on(folder: RunFolder, identity: Mapping[str, Any], config: TrainConfig, out: Console) -> bool:
    """Whether to go on with an unfinished run in the folder.

    Args:
        folder: the run folder.
        identity: the run's, see `ftc.runs.parts.identity`.
        config: the run's configuration.
        out: console for messages.

    Raises:
        InputError: the unfinished run has another configuration.
    """
    try:
        begun = folder.begun()
    except DamagedError:
        out.print("What the unfinished run there had noted is damaged; it is begun anew.", style="yellow")
        return False
    if begun is None or config.overwrite or config.resume == "never":
        return False
    if begun["content"] != identity["content"]:
        raise InputError(
            f"run_dir={folder.path}: holds an unfinished run of another configuration; choose another "
            "folder, or set overwrite=true"
        )
    if begun != identity:
        what = "versions of libraries" if begun["samples"] == identity["samples"] else "images"
        out.print(f"The unfinished run there had other {what}; it is begun anew.", style="yellow")
        return False
    out.print("Going on with the unfinished run.")
    return True
