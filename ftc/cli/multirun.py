"""Checks of a multirun's jobs before the first of them starts (no torch)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from omegaconf import DictConfig

from ftc.cli import optuna_sweeper
from ftc.config.training import TrainerConfig
from ftc.errors import InputError, require


def check_installed(config: DictConfig) -> None:
    """Refuse a launcher or sweeper whose package is not installed.

    Raises:
        InputError: a package is missing; the message says how to install it.
    """
    target = config.hydra.launcher._target_
    choices = config.hydra.runtime.choices
    needed = {"hydra/launcher": ".".join(target.split(".")[:2])}
    if config.hydra.sweeper._target_ == optuna_sweeper.PLUGIN:
        needed["hydra/sweeper"] = "optuna"
    for group, package in needed.items():
        extra = "ray" if choices[group] == "ray" else "sweeps"
        require(package, extra, f"{group}={choices[group]}")


def check_processes(trainer: TrainerConfig, launcher: DictConfig) -> None:
    """Refuse a job that would start its processes itself: each would run the whole sweep again.

    Raises:
        InputError: the job's processes do not fit the sweep; the message says how to start them.
    """
    started = int(os.environ.get("WORLD_SIZE", 1))
    kind = launcher._target_.rpartition(".")[2]
    if started > 1 and kind != "BasicLauncher":
        raise InputError(
            f"hydra/launcher: {started} processes were started together, which do one job after the other; "
            "leave the launcher out"
        )
    by_slurm = kind == "SlurmLauncher" and launcher.tasks_per_node > 1
    if started == 1 and not trainer.is_single and not by_slurm:
        raise InputError(
            f"trainer.devices={trainer.devices}: a job would start its other processes with the whole sweep; "
            "set trainer.devices=1, or start them together: torchrun --nproc-per-node=2 -m ftc.train -m …, "
            "or hydra/launcher=submitit_slurm hydra.launcher.tasks_per_node=2"
        )


def expand(overrides: list[str], grid: bool) -> Iterator[list[str]]:
    """The overrides of every job of a grid, or of jobs that reach the ends of another sweep's search.

    Args:
        overrides: ``key=value``, of the sweep's configuration and of the command line; the last one of a
            key counts.
        grid: whether every combination is a job. If not, one key at a time takes each of its values, or both
            ends of its interval.

    Raises:
        InputError: an interval in a grid.
    """
    choices: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element()
        if override.value() is None and not override.is_delete():
            # The next one of the key replaces the whole node.
            choices[f"{key}=null"] = [f"{key}=null"]
        elif override.is_delete():
            choices[key] = [str(override.input_line)]
        elif not override.is_sweep_override():
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif grid:
            raise InputError(f"{override.input_line}: a grid has no intervals; list values, or sweep=optuna")
        else:
            bounds = override.value()
            assert isinstance(bounds, IntervalSweep)
            choices[key] = [f"{key}={bounds.start}", f"{key}={bounds.end}"]
    if grid:
        yield from map(list, itertools.product(*choices.values()))
        return
    first = {key: values[0] for key, values in choices.items()}
    yield list(first.values())
    for key, values in choices.items():
        for value in values[1:]:
            yield list({**first, key: value}.values())
