"""Run a command under Hydra: early checks, one-line errors, sweeps (no torch)."""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

import ftc
from ftc.cli import optuna_sweeper
from ftc.cli.explain import explain
from ftc.cli.failures import explained
from ftc.cli.multirun import check_installed, check_processes, expand
from ftc.cli.spelling import named, quoted, spelt
from ftc.cli.sweeps import Sweep, job_row, leads
from ftc.cli.terminal import fail, interrupted, reader_has_gone, show_what_it_can
from ftc.config.check import at_home, check
from ftc.config.commands import CalibrateConfig, EvaluateConfig, JobConfig, TrainConfig
from ftc.config.deployment import DeployConfig, PredictConfig
from ftc.config.node import Node
from ftc.config.reports import CompareConfig, ReportConfig
from ftc.errors import InputError
from ftc.files import digest
from ftc.results import OBJECTIVES

KINDS: dict[str, type[Node]] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "calibrate": CalibrateConfig,
    "compare": CompareConfig,
    "report": ReportConfig,
    "deploy": DeployConfig,
    "predict": PredictConfig,
}

# Commands that take plain words, with the key that these are values of.
_WORDS = {"report": "runs"}


def conf_dir() -> Path:
    """The configuration folder: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def _groups(command: str) -> Path | None:
    """The folder of the groups that a command's configuration chooses from; None where it chooses none.

    Without groups any key may be called as a group is, such as ``model``.
    """
    content = OmegaConf.load(conf_dir() / f"{command}.yaml")
    parts = [str(next(iter(d)) if isinstance(d, DictConfig) else d) for d in content.defaults]
    if any(part != "_self_" and not part.startswith("override hydra/") for part in parts):
        return conf_dir()
    ConfigStore.instance().store(command, content)
    return None


def launch(command: str) -> None:
    """Run a command, or the jobs of its multirun, under Hydra.

    The command names its primary configuration in `conf_dir`, its type in `KINDS`, and the function
    ``ftc.runs.<command>.<command>``, which does the work in ``config.run_dir`` and returns the scalars of the
    sweep's table.
    """
    if "--version" in sys.argv[1:]:
        print(f"ftc {ftc.__version__}")
        return
    # Hydra would print its own, longer report and exit; we want the exception.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signal.signal(signal.SIGINT, _interrupted)
    _give_a_home()
    let_hydra_describe_itself()
    groups = _groups(command)
    sys.argv[1:] = named(sys.argv[1:], _WORDS.get(command))
    sys.argv[1:] = [spelt_out for argument in sys.argv[1:] for spelt_out in spelt(argument, groups)]
    show_what_it_can()
    optuna_sweeper.register()
    kind = KINDS[command]

    def task(config: DictConfig) -> float | None:
        row: dict[str, Any] = {}
        try:
            typed = check(_with_folder(config, kind), kind)
            with _sweep_row(typed) as row, explained(typed):
                row.update(_work(command)(typed))
                return _objective(typed, row)
        except BrokenPipeError:
            reader_has_gone()
        except InputError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # a failure of the launcher: every job was checked before
            fail(str(error))
        return None

    try:
        path = None if groups is None else str(groups)
        hydra.main(version_base="1.3", config_path=path, config_name=command)(task)()
    except BrokenPipeError:
        reader_has_gone()
    except Exception as error:
        if CheckConfig.sweep is not None:
            _end(CheckConfig.sweep, error)
        line = explain(error)
        if line is None:
            raise
        fail(line)
    if CheckConfig.sweep is not None:
        _end(CheckConfig.sweep)


def _give_a_home() -> None:
    """Libraries keep caches in the user's home folder, which containers may lack."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.mkdtemp(prefix="home-")


def let_hydra_describe_itself() -> None:
    """Python 3.14 reads the help of an option when it is added; Hydra 1.3 has one that is no string yet."""
    if sys.version_info >= (3, 14):
        argparse.ArgumentParser._check_help = lambda parser, action: None


def _interrupted(number: int, frame: object) -> NoReturn:
    # Libraries swallow a KeyboardInterrupt, or end with a status of their own.
    if leads():
        interrupted("the same command goes on from what is kept")
    raise SystemExit(128 + number)


def _work(command: str) -> Callable[[Any], Mapping[str, Any]]:
    """The function that does a command's work.

    The import takes seconds because of torch, so it comes after the checks of the configuration.
    """
    # Hydra shows what any library reports; only its own reports say what the user asked for.
    logging.getLogger().setLevel(logging.WARNING)
    for name in ("hydra", "hydra_plugins"):
        logging.getLogger(name).setLevel(logging.INFO)
    # W&B's own telemetry, which Python 3.14 ends twice.
    logging.getLogger("opentelemetry.sdk").setLevel(logging.ERROR)
    work = getattr(_imported(f"ftc.runs.{command}"), command)
    # What a library prints by itself, Hydra would print once more.
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and logger.handlers:
            logger.propagate = False
    # Lightning sets its own levels at import, so ours come after it.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return work


def _imported(name: str) -> ModuleType:
    """A module, imported without looking for garbage, of which imports make none; that would take a second.

    Nor is what they made looked at later. A job of a sweep that comes after another imports nothing, and must
    freeze nothing: what the other left would stay for good.
    """
    if name in sys.modules:
        return sys.modules[name]
    gc.disable()
    try:
        module = import_module(name)
    finally:
        gc.enable()
    gc.freeze()
    # Libraries made with nanobind, such as triton's, report what they still have when Python ends.
    if any(kind.__module__ == "nanobind" for kind in type.__subclasses__(type)):
        atexit.register(gc.unfreeze)
    return module


def _end(sweep: Sweep, error: Exception | None = None) -> None:
    """Report on a sweep; exit with status 1 if a job did not finish or the launcher failed."""
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
    """Check the configuration before anything else happens; in a multirun, that of every job.

    Args:
        kind: the command, a key of `KINDS`.

    Attributes:
        sweep: the sweep that this process runs; None outside a sweep.
    """

    sweep: ClassVar[Sweep | None] = None

    def __init__(self, kind: str) -> None:
        self.kind = KINDS[kind]

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = config.hydra.run.dir
        if folder != ".":
            mend = f"set run_dir={folder}" if issubclass(self.kind, JobConfig) else "leave it out"
            fail(f"hydra.run.dir={folder}: has no effect here; {mend}")
        self._check(_without_hydra(config))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        # Jobs are composed anew from these overrides; a job's own must not change the sweep's folder.
        with read_write(config.hydra):
            config.hydra.sweep.dir = at_home(config.hydra.sweep.dir)
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(config.hydra.sweep.dir)}")
        grid = config.hydra.sweeper.get("_target_") != optuna_sweeper.PLUGIN
        # Values that the configuration sweeps; those of the command line come later, and so override them.
        # As they were given: what one refers to, such as ${seed}, is another value in every job.
        given = OmegaConf.to_container(config.hydra, resolve=False)
        assert isinstance(given, dict)
        swept = [f"{key}={value}" for key, value in (given["sweeper"].get("params") or {}).items()]
        jobs: dict[str, list[str]] = {}
        objective = None
        try:
            check_installed(config)
            for overrides in expand([*swept, *given["overrides"]["task"]], grid):
                job = self._checked_job(config, overrides)
                if isinstance(job, JobConfig):
                    jobs[job.run_name()] = overrides
                objective = getattr(job, "objective", None)
                if objective is not None:
                    # Worth the import of torch: otherwise the sweep would fail only job by job.
                    import_module("ftc.assembly.components").build_calibrators(job)
        except (HydraException, OmegaConfBaseException, InputError) as error:
            fail(explain(error) or str(error))
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
            check_processes(job.trainer, config.hydra.launcher)
        return job

    def _check(self, config: DictConfig) -> None:
        try:
            check(config, self.kind)
        except InputError as error:
            fail(str(error))


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _with_folder(config: DictConfig, kind: type[Node]) -> DictConfig:
    """Fill in ``run_dir`` and ``group`` where they are null."""
    if not issubclass(kind, JobConfig):
        return config
    hydra_config = HydraConfig.get()
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    config.output_dir = at_home(config.output_dir)
    parent = Path(hydra_config.sweep.dir if sweeping else config.output_dir)
    if config.run_dir is None:
        config.run_dir = str(parent / check(config, kind).run_name())
    if sweeping and "group" in config and config.group is None:
        config.group = parent.name
    return config


def _sweep_name(_root_: DictConfig) -> str:
    return f"{_root_.name}-{digest(sorted(_root_.hydra.overrides.task))}"


# Set at import, not in `launch`, since a job may run in another process. The warning is about our launcher
# files, which are checked against the plugins' schemas on purpose.
OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)
warnings.filterwarnings("ignore", message="\\s*'hydra/launcher/.*' is validated against ConfigStore schema")


def _sweep_row(config: Node) -> AbstractContextManager[dict[str, Any]]:
    """The job's row in the sweep's table; outside a multirun, a row that is not kept."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN or not isinstance(config, JobConfig):
        return nullcontext({})
    assert config.run_dir is not None
    return job_row(Path(hydra_config.sweep.dir), Path(config.run_dir).name, hydra_config.overrides.task)


def _objective(config: Node, scalars: Mapping[str, Any]) -> float | None:
    """The number that the job returns to a sweeper; None without an objective.

    Raises:
        InputError: the run finished without this number.
    """
    name = getattr(config, "objective", None)
    if name is None:
        return None
    value = scalars.get(f"selection/{name}")
    if value is None:
        raise InputError(f"objective={name}: this run has no such number; overwrite=true computes it")
    return float(value)
