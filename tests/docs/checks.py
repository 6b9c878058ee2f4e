"""A command line of ftc checked as ftc itself checks it before any work begins."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from unittest import mock

from hydra import compose, initialize, initialize_config_dir
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode

from ftc.benchmarks.catalogue import BENCHMARKS, LISTS, PARTS
from ftc.cli import launch
from ftc.cli.multirun import check_processes, expand
from ftc.cli.spelling import named, spelt
from ftc.config.check import check
from ftc.config.commands import TrainConfig
from ftc.config.node import Node
from ftc.errors import InputError
from ftc.results import FILE_NAME
from tests.docs.stand_ins import clone

_READ = ConfigRepository.load_config
_LOADED: dict[tuple[tuple[str, ...], str], ConfigResult | None] = {}


def check_words(name: str, arguments: list[str], processes: int, seen: set[str]) -> list[Node]:
    """Compose and type-check a command of ftc's, in a multirun with the values of its lists; nothing is run.

    Args:
        name: the command, such as ``train``.
        arguments: its arguments, as on the command line.
        processes: number of processes that run it together.
        seen: values of lists, ``key=value``, that other commands had and that need not be tried again; this
            command's are added.

    Returns:
        The configurations; none for a command without one, or one that only prints.

    Raises:
        InputError, HydraException, OmegaConfBaseException: what is wrong with them.
    """
    if name not in launch.KINDS:
        _parse(name, arguments)
        return []
    # What a command leaves in the store is its process's own.
    with mock.patch.dict(ConfigStore.instance().repo):
        return _composed(name, arguments, processes, seen)


def _composed(name: str, arguments: list[str], processes: int, seen: set[str]) -> list[Node]:
    groups = launch._groups(name)
    words = [s for word in named(arguments, launch._WORDS.get(name)) for s in spelt(word, groups)]
    if "--version" in words:
        return []
    launch.let_hydra_describe_itself()
    given = get_args_parser().parse_args(words)
    if given.help or given.shell_completion:
        return []
    own = [f"hydra.searchpath=[file://{Path(given.config_dir).resolve()}]"] if given.config_dir else []
    with _hydra(groups), mock.patch.object(ConfigRepository, "load_config", _load):
        return list(_checked(name, [*own, *given.overrides], given.multirun, processes, seen))


def _hydra(groups: Path | None) -> AbstractContextManager[object]:
    """Hydra as `launch` starts it: without groups the configuration is in its store alone."""
    if groups is None:
        return initialize(None, version_base="1.3")
    return initialize_config_dir(str(groups), version_base="1.3")


def _load(repository: ConfigRepository, config_path: str) -> ConfigResult | None:
    """A file of the configuration, which every command would read and parse anew."""
    places = tuple(source.full_path() for source in repository.get_sources())
    if (places, config_path) not in _LOADED:
        _LOADED[places, config_path] = _READ(repository, config_path)
    return deepcopy(_LOADED[places, config_path])


def _parse(name: str, arguments: list[str]) -> None:
    """Let a command that has no configuration parse its arguments."""
    parse = argparse.ArgumentParser.parse_args

    class ParsedError(Exception):
        pass

    def stop(*args: object, **kwargs: object) -> None:
        parse(*args, **kwargs)  # type: ignore[call-overload]
        raise ParsedError

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        mock.patch("sys.argv", [f"ftc.{name}", *arguments]),
    ):
        try:
            import_module(f"ftc.{name}").main()
        except (ParsedError, SystemExit) as ending:
            if isinstance(ending, SystemExit) and ending.code:
                raise InputError(f"ftc.{name}: its arguments cannot be parsed") from ending


def _checked(
    name: str, overrides: list[str], multirun: bool, processes: int, seen: set[str]
) -> Iterator[Node]:
    read = OverridesParser.create().parse_overrides(overrides)
    plain = [str(one.input_line) for one in read if not one.is_sweep_override()]
    whole = compose(name, plain, return_hydra_config=True)
    if not (multirun or whole.hydra.mode == RunMode.MULTIRUN):
        if len(plain) < len(read):
            raise InputError("lists of values without -m")
        yield check(launch._without_hydra(whole), launch.KINDS[name])
        return
    swept = [f"{key}={value}" for key, value in (whole.hydra.sweeper.get("params") or {}).items()]
    tasks = [word for word in overrides if not word.startswith("hydra")]
    for job in _jobs([*swept, *tasks], seen):
        typed = check(compose(name, job), launch.KINDS[name])
        if isinstance(typed, TrainConfig):
            with mock.patch.dict("os.environ", WORLD_SIZE=str(processes)):
                check_processes(typed.trainer, whole.hydra.launcher)
        yield typed


def _jobs(overrides: list[str], seen: set[str]) -> Iterator[list[str]]:
    """Jobs that together have every value of every list that was not seen yet, of numbers the ends alone."""
    keys: dict[str, list[str]] = {}
    for job in expand(overrides, grid=False):
        for word in job:
            values = keys.setdefault(word.partition("=")[0], [])
            values.extend([word] if word not in values else [])
    lists = [[v for v in _ends(values) if v not in seen] or values[:1] for values in keys.values()]
    seen.update(*lists)
    for number in range(max(map(len, lists), default=0)):
        yield [values[min(number, len(values) - 1)] for values in lists]


def _ends(words: list[str]) -> list[str]:
    numbers = all(_is_number(word.partition("=")[2]) for word in words)
    return [words[0], words[-1]] if numbers and len(words) > 2 else words


def _is_number(word: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", word) is not None


def lay_out_names(home: Path) -> None:
    """Benchmarks whose folders have every name that is asked for, and empty files."""
    for benchmark in BENCHMARKS.values():
        for task in benchmark.tasks or (None,):
            folder = benchmark.folder(home / "data", task)
            lists = [f"{LISTS}/{prefix}_{part}.txt" for prefix in benchmark.lists for part in PARTS]
            for name in (*benchmark.domains, *lists, *benchmark.requires):
                _touch(folder / name)


def lay_out_arguments(home: Path, arguments: list[str]) -> None:
    """Empty files and folders of all names among the arguments; only what ``to`` names is not there."""
    for argument in arguments:
        key, _, value = argument.rpartition("=")
        for name in re.findall(r"[\w.-][\w./-]*", value):
            if key == "to":
                shutil.rmtree(home / name, ignore_errors=True)
            elif key == "paper_repo":
                clone(home / name, images_per_class=0)
            elif not _is_number(name):
                _touch(home / name)


def _touch(path: Path) -> None:
    """A file where the name has a suffix; else a folder, which may be that of a finished run."""
    folder = path.parent if path.suffix else path
    folder.mkdir(parents=True, exist_ok=True)
    (path if path.suffix else path / FILE_NAME).touch()
