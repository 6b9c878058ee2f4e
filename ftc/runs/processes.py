"""Checks that the processes of torchrun, on one host or several, agree before they train together."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed import DistNetworkError, PrefixStore, TCPStore

from ftc.errors import InputError

# How long to wait (s) for another process.
_PATIENCE = 1800.0


def leads() -> bool:
    """Whether this process writes and prints; the other processes of a run only compute."""
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]


def check_processes(trainer: Trainer) -> None:
    """Refuse processes that were started for another number of devices or hosts.

    Raises:
        InputError: the numbers differ; the message says what was started and what to change.
    """
    devices, hosts = trainer.num_devices, trainer.num_nodes
    if TorchElasticEnvironment.detect():
        started, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        if (started, here) != (devices * hosts, devices):
            raise InputError(
                f"trainer.devices={devices}, trainer.num_nodes={hosts}: torchrun started {started} "
                f"processes, {here} of them here; make --nproc-per-node and --nnodes the same"
            )
    elif hosts > 1 and isinstance(
        getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment
    ):
        raise InputError(
            f"trainer.num_nodes={hosts}: start the run with torchrun on every host; docs/scaling.md has the "
            "commands"
        )


@contextmanager
def all_or_none() -> Iterator[None]:
    """Make an error in one process an error in all, so that none waits for a process that has given up.

    Processes may do different things in the block; each leaves it when all have reached its end. Only
    processes of torchrun wait for each other, and they need no process group for it.

    Raises:
        InputError: another process failed; the message is that process's.
    """
    others = company()
    if others is None:
        yield
        return
    try:
        yield
    except Exception as error:
        others.fail(error)
        raise
    others.meet()


def check_shared(
    path: Path, facts: Callable[[], Mapping[str, Any]], leading: bool, patience: float = 60.0
) -> None:
    """Refuse hosts that do not work on the same files.

    Args:
        path: a file that the leading process has written.
        facts: gives what all processes must find equal, JSON types by configuration key; called only where
            there are several processes.
        leading: whether this is the leading process.
        patience: how long to wait (s) for a file of one host to appear on another.

    Raises:
        InputError: the processes differ, or do not see the file; the message names the key.
    """
    others = company()
    if others is None:
        return
    ours = json.loads(json.dumps(facts()))
    theirs = others.published(ours if leading else None)
    with all_or_none():
        for key, value in ours.items():
            if value != theirs[key]:
                raise InputError(f"{key}: differs between the processes; give all hosts the same files")
        late = time.monotonic() + patience
        while not path.is_file():
            if time.monotonic() > late:
                raise InputError(
                    f"run_dir={path.parent}: not every process sees what the first has written there; put "
                    "output_dir on a file system that all hosts share"
                )
            time.sleep(1)


class Company:
    """The processes of one torchrun, which talk through the key-value store of its agents."""

    def __init__(self) -> None:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
        self.size = int(os.environ["WORLD_SIZE"])
        self.store = PrefixStore(
            f"ftc/{attempt}", TCPStore(host, port, is_master=False, timeout=timedelta(seconds=_PATIENCE))
        )
        self._meetings = 0

    def published(self, facts: Mapping[str, Any] | None) -> dict[str, Any]:
        """The facts that the leading process publishes; the others wait for them.

        Args:
            facts: the facts in the leading process, None in the others.
        """
        key = f"facts/{self._meetings}"
        if facts is not None:
            self.store.set(key, json.dumps(facts))
        return json.loads(self.store.get(key))

    def fail(self, error: Exception) -> None:
        """Tell the others in one line why this process does not come to the next meeting."""
        self._meetings += 1
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        self.store.set(f"failed/{self._meetings}", kind + " ".join(str(error).split()))

    def meet(self) -> None:
        """Wait for the others.

        Raises:
            InputError: another process has given up, or did not come in time.
        """
        self._meetings += 1
        failed = f"failed/{self._meetings}"
        late = time.monotonic() + _PATIENCE
        try:
            self.store.add(f"meeting/{self._meetings}", 1)
            while self.store.add(f"meeting/{self._meetings}", 0) < self.size:
                if self.store.check([failed]):
                    raise InputError(self.store.get(failed).decode())
                if time.monotonic() > late:
                    raise InputError(f"a process of another host did not come; waited {_PATIENCE:.0f} s")
                time.sleep(0.1)
        except DistNetworkError as error:
            raise InputError("the first host has ended the run; it says why") from error


@cache
def company() -> Company | None:
    """The processes that were started together with this one; None for a process that is alone."""
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    keeps_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Company() if TorchElasticEnvironment.detect() and keeps_store and not alone else None
