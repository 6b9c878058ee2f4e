"""What all entry points share: Hydra, early checks, one-line errors, sweeps (no torch)."""

from __future__ import annotations

import difflib
import importlib.util
import itertools
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from ftc.cli import optuna_sweeper
from ftc.cli.sweeps import Sweep, job_row, leads
from ftc.config.check import check
from ftc.config.commands import (
    CalibrateConfig,
    CompareConfig,
    EvaluateConfig,
    JobConfig,
    TrainConfig,
    TrainerConfig,
    digest,
)
from ftc.config.node import Node
from ftc.errors import InputError
from ftc.results import OBJECTIVES

# Seconds that the other processes of a host give the first to say what is wrong.
_TURN = 5.0
KINDS: dict[str, type[Node]] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "calibrate": CalibrateConfig,
    "compare": CompareConfig,
}


def conf_dir() -> Path:
    """The configuration folder: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def launch(config_name: str, job: Callable[[Any], Mapping[str, Any]]) -> None:
    """Run a job, or the jobs of a multirun, under Hydra.

    Args:
        config_name: primary configuration in `conf_dir`; names its type in `KINDS`.
        job: does the work in ``config.run_dir``; returns the scalars that a sweep's table lists.
    """
    # Hydra would print its own, longer report and exit; we want the exception.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    optuna_sweeper.register()

    kind = KINDS[config_name]

    def task(config: DictConfig) -> float | None:
        row: dict[str, Any] = {}
        try:
            typed = check(_with_folder(config, kind), kind)
            with _sweep_row(typed) as row:
                row.update(job(typed))
                return _objective(typed, row)
        except InputError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # it stands for the launcher's: every job was checked before
            fail(str(error))
        return None

    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        fail(explain(error))
    except Exception as error:
        if CheckConfig.sweep is not None:
            _end(CheckConfig.sweep, error)
        if isinstance(error, InputError):
            fail(str(error))
        raise
    if CheckConfig.sweep is not None:
        _end(CheckConfig.sweep)


def fail(message: str) -> NoReturn:
    """Print one line a problem on stderr and exit with status 2.

    Of several processes of a host the first speaks for all: it ends the others, or torchrun does.
    """
    if int(os.environ.get("LOCAL_RANK", "0")):
        time.sleep(_TURN)
    for line in message.splitlines():
        print(f"ftc: error: {line}", file=sys.stderr)
    raise SystemExit(2)


def _end(sweep: Sweep, error: Exception | None = None) -> None:
    """Report on a sweep; exit with status 1 where a job did not finish, or the launcher failed."""
    if not leads():
        return
    finished = sweep.report()
    if error is not None:
        trace = sweep.folder / "launcher.error.txt"
        trace.write_text("".join(traceback.format_exception(error)))
        reason = " ".join(str(error).split())[:200]
        print(f"ftc: error: launcher: {type(error).__name__}: {reason} ({trace})", file=sys.stderr)
    if error is not None or not finished:
        raise SystemExit(1)


class CheckConfig(Callback):
    """Checks the configuration, every job's in a multirun, before anything else happens.

    Args:
        kind: name of its type in `KINDS`.

    Attributes:
        sweep: the one at work in this process, None where there is none.
    """

    sweep: ClassVar[Sweep | None] = None

    def __init__(self, kind: str) -> None:
        self.kind = KINDS[kind]

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._check(_without_hydra(config))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        # Jobs are composed anew from these overrides; the sweep's folder must not depend on the job's.
        with read_write(config.hydra):
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{config.hydra.sweep.dir}'")
        grid = config.hydra.sweeper.get("_target_") != optuna_sweeper.PLUGIN
        # What a sweep's configuration goes through, below what the command line says.
        swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        jobs: dict[str, list[str]] = {}
        objective = None
        try:
            _check_installed(config)
            for overrides in _expand([*swept, *config.hydra.overrides.task], grid):
                job = self._checked_job(config, overrides)
                if isinstance(job, JobConfig):
                    jobs[job.run_name()] = overrides
                objective = getattr(job, "objective", None)
        except (HydraException, OmegaConfBaseException) as error:
            fail(explain(error))
        except InputError as error:
            fail(str(error))
        if not grid and objective is None:
            fail(f"objective=null: name what Optuna maximises; choose from {', '.join(OBJECTIVES)}")
        if jobs:
            CheckConfig.sweep = Sweep(Path(config.hydra.sweep.dir), jobs if grid else {}, objective)
            if leads():
                CheckConfig.sweep.begin()

    def _checked_job(self, config: DictConfig, overrides: list[str]) -> Node:
        composed = hydra.compose(config_name=config.hydra.job.config_name, overrides=overrides)
        job = check(composed, self.kind)
        if isinstance(job, JobConfig) and job.run_dir is not None:
            raise InputError(f"run_dir={job.run_dir}: a sweep's jobs need a folder each; leave run_dir out")
        if isinstance(job, TrainConfig):
            _check_processes(job.trainer, config.hydra.launcher)
        return job

    def _check(self, config: DictConfig) -> None:
        try:
            check(config, self.kind)
        except InputError as error:
            fail(str(error))


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _check_installed(config: DictConfig) -> None:
    """Refuse a launcher or sweeper whose package is not there.

    Raises:
        InputError: how to get it.
    """
    target = config.hydra.launcher._target_
    choices = config.hydra.runtime.choices
    needed = {"hydra/launcher": ".".join(target.split(".")[:2])}
    if config.hydra.sweeper._target_ == optuna_sweeper.PLUGIN:
        needed["hydra/sweeper"] = "optuna"
    for group, package in needed.items():
        if importlib.util.find_spec(package) is None:
            extra = "ray" if choices[group] == "ray" else "sweeps"
            raise InputError(f"{group}={choices[group]}: is not installed; pip install 'ftc[{extra}]'")


def _check_processes(trainer: TrainerConfig, launcher: DictConfig) -> None:
    """Refuse a job that would start its processes itself: each would run the whole sweep again.

    Raises:
        InputError: how to start them with the sweep.
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


def _expand(overrides: list[str], grid: bool) -> Iterator[list[str]]:
    """The overrides of every job of a grid; of another sweep, those that reach the ends of what it searches.

    Raises:
        InputError: an interval in a grid.
    """
    choices: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element()
        if override.is_delete():
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


def _with_folder(config: DictConfig, kind: type[Node]) -> DictConfig:
    """Fill in ``run_dir`` and ``group`` where they are left open."""
    if not issubclass(kind, JobConfig):
        return config
    hydra_config = HydraConfig.get()
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    parent = Path(hydra_config.sweep.dir if sweeping else config.output_dir)
    if config.run_dir is None:
        config.run_dir = str(parent / check(config, kind).run_name())
    if sweeping and "group" in config and config.group is None:
        config.group = parent.name
    return config


def _sweep_name(_root_: DictConfig) -> str:
    return f"{_root_.name}-{digest(sorted(_root_.hydra.overrides.task))}"


# Here, and not where jobs are launched: a job's process may be another one. That our launchers' settings are
# checked against their plugins' is meant to be.
OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)
warnings.filterwarnings("ignore", message="\\s*'hydra/launcher/.*' is validated against ConfigStore schema")


def _sweep_row(config: Node) -> AbstractContextManager[dict[str, Any]]:
    """In a multirun, the job's row in the sweep's table."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN or not isinstance(config, JobConfig):
        return nullcontext({})
    assert config.run_dir is not None
    return job_row(Path(hydra_config.sweep.dir), Path(config.run_dir).name, hydra_config.overrides.task)


def _objective(config: Node, scalars: Mapping[str, Any]) -> float | None:
    """What the job returns to a sweeper.

    Raises:
        InputError: a run that finished without it.
    """
    name = getattr(config, "objective", None)
    if name is None:
        return None
    value = scalars.get(f"selection/{name}")
    if value is None:
        raise InputError(f"objective={name}: this run has no such number; overwrite=true makes it anew")
    return float(value)


def explain(error: BaseException) -> str:
    """One line for an error of Hydra or OmegaConf: key, value, choices."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={choice}: no such choice; choose from {', '.join(error.options)}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
            key = str(cause.full_key or cause.key)
            names = sorted(str(name) for name in cause.parent_node)
            if str(cause.key) not in names:
                near = difflib.get_close_matches(str(cause.key), names, n=1)
                hint = f" did you mean {near[0]}?" if near else ""
                mend = f"choose from {', '.join(names)}" if names else "add it with a leading +"
                return f"{_override_of(key)}: no such key;{hint} {mend}"
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split())


def _override_of(key: str) -> str:
    """The command-line argument that set a key, or the key itself."""
    return next((a for a in sys.argv[1:] if a.lstrip("+~").partition("=")[0].startswith(key)), key)
