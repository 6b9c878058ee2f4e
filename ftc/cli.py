"""What all entry points share: Hydra, early checks, one-line errors, sweeps (no torch)."""

from __future__ import annotations

import csv
import difflib
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from ftc.check import check
from ftc.config import CalibrateConfig, CompareConfig, EvaluateConfig, JobConfig, TrainConfig, digest
from ftc.errors import InputError
from ftc.files import written_whole
from ftc.node import Node

SWEEP_TABLE = "sweep.csv"
KINDS: dict[str, type[Node]] = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "calibrate": CalibrateConfig,
    "compare": CompareConfig,
}


def conf_dir() -> Path:
    """The configuration folder: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
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
    OmegaConf.register_new_resolver("sweep_name", _sweep_name, replace=True)

    kind = KINDS[config_name]

    def task(config: DictConfig) -> None:
        try:
            typed = check(_with_folder(config, kind), kind)
            with _sweep_row(typed) as row:
                row.update(job(typed))
        except InputError as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # the sweep's other jobs go on
            fail(str(error))

    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        fail(explain(error))
    except InputError as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Print one line a problem on stderr and exit with status 2."""
    for line in message.splitlines():
        print(f"ftc: error: {line}", file=sys.stderr)
    raise SystemExit(2)


class CheckConfig(Callback):
    """Checks the configuration, every job's in a multirun, before anything else happens.

    Args:
        kind: name of its type in `KINDS`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = KINDS[kind]

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._check(_without_hydra(config))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        # Jobs are composed anew from these overrides; the sweep's folder must not depend on the job's.
        with read_write(config.hydra):
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{config.hydra.sweep.dir}'")
        # What a sweep's configuration goes through, below what the command line says.
        swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        for overrides in _expand([*swept, *config.hydra.overrides.task]):
            try:
                job = hydra.compose(config_name=config.hydra.job.config_name, overrides=overrides)
            except (HydraException, OmegaConfBaseException) as error:
                fail(explain(error))
            self._check(job)
            if job.get("run_dir") is not None:
                fail(f"run_dir={job.run_dir}: a sweep's jobs need a folder each; leave run_dir out")

    def _check(self, config: DictConfig) -> None:
        try:
            check(config, self.kind)
        except InputError as error:
            fail(str(error))


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _expand(overrides: list[str]) -> Iterator[list[str]]:
    """The overrides of every job of a sweep over lists of values; other sweeps as they are at their start."""
    choices: list[list[str]] = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if not override.is_sweep_override():
            choices.append([str(override.input_line)])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    yield from map(list, itertools.product(*choices))


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


@contextmanager
def _sweep_row(config: Node) -> Iterator[dict[str, Any]]:
    """In a multirun, note how the job ended in the sweep's table, as soon as it has."""
    row: dict[str, Any] = {}
    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN or not isinstance(config, JobConfig):
        yield row
        return
    assert config.run_dir is not None
    first: dict[str, Any] = {"run": Path(config.run_dir).name, "status": "finished", "error": ""}
    for override in hydra_config.overrides.task:
        key, _, value = override.partition("=")
        first[key.lstrip("+~")] = value
    try:
        yield row
    except BaseException as error:
        first |= {"status": "failed", "error": " ".join(f"{type(error).__name__}: {error}".split())}
        raise
    finally:
        add_row(Path(hydra_config.sweep.dir) / SWEEP_TABLE, {**first, **row})


def add_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a CSV table, in place of the row of the same run; safe when jobs end at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        rows: list[Mapping[str, Any]] = []
        if path.is_file():
            with path.open(newline="") as file:
                rows = [old for old in csv.DictReader(file) if old["run"] != row["run"]]
        rows.append(row)
        fields = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
        with written_whole(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fields, restval="")
            writer.writeheader()
            writer.writerows(rows)


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
