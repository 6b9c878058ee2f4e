"""Loggers that need more than Lightning's defaults."""

from __future__ import annotations

import csv
import inspect
import netrc
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from ftc.assembly.instantiate import make
from ftc.config.commands import TrainConfig
from ftc.errors import InputError
from ftc.files import DamagedError, damage, written_whole


def csv_logger(folder: str) -> MetricsFile:
    """A logger that writes ``metrics.csv`` into the run folder itself."""
    return MetricsFile(Path(folder) / "metrics.csv")


class MetricsFile(Logger):
    """A CSV table of everything logged, with one row per call, one column per name, and the step.

    A run that goes on after an interruption logs some rows again; they replace the earlier ones.

    Args:
        path: the file; its existing rows are kept.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._rows: dict[tuple[str, ...], dict[str, Any]] = {}
        if path.is_file():
            try:
                with damage(path):
                    lines = path.read_text(encoding="utf-8").split("\n")
                    if lines.pop():
                        raise ValueError("the last line has no end")
                    for row in csv.DictReader(lines, strict=True):
                        self._put({name: value for name, value in row.items() if value})
            except DamagedError:
                self._rows = {}
                rank_zero_warn(f"{path}: is damaged; what is logged from here on replaces it")

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Log nothing: the run folder has ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._put({**metrics, "step": len(self._rows) if step is None else step})

    def _put(self, row: dict[str, Any]) -> None:
        key = (str(row["step"]), *sorted(row))
        self._rows[key] = row

    @rank_zero_only
    def save(self) -> None:
        names = sorted(set().union(*self._rows.values()))
        with written_whole(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows.values())


def wandb_logger(
    folder: str, project: str | None = None, group: str | None = None, finish_timeout: float = 300.0
) -> Logger:
    """A logger whose W&B run is named as the run folder, unless W&B's environment variables say otherwise.

    It never prompts, and a missing network never stops a training. It is online where an API key or a login
    exists, else offline; the environment variable ``WANDB_MODE`` overrides this. A run that goes on after an
    interruption keeps its id: online it stays one run, offline it gets one more folder, which ``wandb sync``
    uploads after the first.

    Args:
        folder: the run folder.
        project: W&B project; None for ``WANDB_PROJECT``, else ``ftc``.
        group: W&B group, which the jobs of a sweep share; None for ``WANDB_RUN_GROUP``.
        finish_timeout: seconds to wait at the end for uploads; the rest stays in the folder.
    """
    import wandb

    known = Path(folder) / "wandb" / "run_id"
    if not known.is_file() or not re.fullmatch(r"[0-9a-f]{8}", known.read_text(errors="replace")):
        with written_whole(known) as temporary:
            temporary.write_text(secrets.token_hex(4))
    arguments: dict[str, Any] = {
        "id": known.read_text(),
        "resume": "allow",
        "dir": os.environ.get("WANDB_DIR") or folder,
        "project": project or os.environ.get("WANDB_PROJECT") or "ftc",
        "group": group or os.environ.get("WANDB_RUN_GROUP") or None,
        "name": os.environ.get("WANDB_NAME") or Path(folder).name,
        "mode": _mode(),
        "settings": wandb.Settings(init_timeout=30, finish_timeout=finish_timeout, silent=True),
    }
    # W&B must not stop a training: where it cannot do what it is asked, it does less.
    for mode in dict.fromkeys((arguments["mode"], "offline", "disabled")):
        try:
            run = wandb.init(**{**arguments, "mode": mode})
            break
        except Exception as error:  # W&B's errors share no base class
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            rank_zero_warn(f"W&B does not answer ({reason}); logging {_LESS.get(mode, 'nothing there')}")
            # Its process still knows the run by this id.
            wandb.teardown()
    else:
        return DummyLogger()
    for stage in ("val", "test"):
        run.define_metric(f"{stage}/epoch", hidden=True)
        run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
    _keep_going_without(run, folder)
    return WandbLogger(experiment=run, save_dir=folder)


def _keep_going_without(run: Any, folder: str) -> None:
    """If W&B fails during a run, warn once and log nothing more, instead of ending the training."""
    import wandb

    failed = False

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def attempt(*args: Any, **kwargs: Any) -> Any:
            nonlocal failed
            if failed:
                return None
            try:
                return call(*args, **kwargs)
            except Exception as error:  # W&B's errors share no base class
                failed = True
                rank_zero_warn(
                    f"W&B failed ({type(error).__name__}: {error}); nothing more is logged there; what it "
                    f"has is in {folder}/wandb"
                )
                with suppress(Exception):
                    wandb.teardown()
                return None

        return attempt

    for name in ("log", "define_metric", "finish"):
        setattr(run, name, guarded(getattr(run, name)))


_MODES = ("online", "offline", "disabled", "shared")
# What is logged where a mode fails.
_LESS = {"online": "offline", "shared": "offline"}


def _mode() -> str:
    """W&B's mode: ``WANDB_MODE``, else online where it could log in.

    Raises:
        InputError: the variable names no mode.
    """
    asked = os.environ.pop("WANDB_MODE", "").strip().lower()
    if asked and asked not in _MODES:
        raise InputError(f"WANDB_MODE={asked}: no such mode; choose from {', '.join(_MODES)}, or unset it")
    if asked:
        # W&B reads it, too, and knows one spelling only.
        os.environ["WANDB_MODE"] = asked
    return asked or ("online" if _has_credentials() else "offline")


def _has_credentials() -> bool:
    """Whether W&B could log in without asking: an API key in the environment or in netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    host = urlsplit(wandb.Settings().base_url).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def logger_factories(config: TrainConfig) -> list[Callable[[], Logger]]:
    """Functions that make the run's loggers, to be called once its folder exists.

    Raises:
        InputError: a target that does not exist or does not take its arguments.
    """
    factories: list[Callable[[], Logger]] = []
    for name, node in (config.logger or {}).items():
        factory = make(f"logger.{name}", {**node, "_partial_": True})
        try:
            inspect.signature(factory).bind()
        except (TypeError, ValueError) as error:
            reason = f"does not take these arguments ({error})"
            raise InputError(f"logger.{name}={node['_target_']}: {reason}") from error
        if factory.func is wandb_logger:
            _mode()  # refused now, not when the run's first stage is done
        factories.append(partial(_made, f"logger.{name}={node['_target_']}", factory))
    return factories


def _made(key: str, factory: Callable[[], Logger]) -> Logger:
    """A logger; what it does not take as values is told with its key."""
    try:
        return factory()
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{key}: does not take these values ({' '.join(str(error).split())})") from error


@contextmanager
def closing(makers: Sequence[Callable[[], Logger]]) -> Iterator[list[Logger]]:
    """Make loggers for the block and close their W&B runs after it, so that the next job gets its own.

    Args:
        makers: functions of `logger_factories`.

    Yields:
        The loggers.
    """
    loggers = [make_logger() for make_logger in makers]
    try:
        yield loggers
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()
