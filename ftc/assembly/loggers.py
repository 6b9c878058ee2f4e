"""Loggers that need more than Lightning's defaults."""

from __future__ import annotations

import csv
import inspect
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from ftc.assembly.instantiate import make
from ftc.callbacks.trackers import ResultsPanel, forgiving, tracker
from ftc.config.commands import TrainConfig
from ftc.errors import InputError, require
from ftc.files import DamagedError, damage, written_whole
from ftc.machine.wandb_mode import wandb_mode
from ftc.reporting.names import COLUMNS
from ftc.results import FILE_NAME, RunRecord

# What a tracker is sent of a finished run on request: names → files in the run folder.
ARTIFACTS = {
    "report": ("report.html",),
    "model": ("checkpoints/calibrated.safetensors", FILE_NAME),
}


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


# What is logged where a mode of W&B fails.
_LESS = {"online": "offline", "shared": "offline"}


class _Wandb(WandbLogger):
    """W&B's logger, with the names of the artifacts that were asked for."""

    artifacts: Sequence[str] = ()


def wandb_logger(
    folder: str,
    project: str | None = None,
    group: str | None = None,
    finish_timeout: float = 300.0,
    artifacts: Sequence[str] = (),
) -> Logger:
    """A logger whose W&B run is named as the run folder, unless W&B's environment variables say otherwise.

    It never prompts, and a missing network never stops a training. It is online where an API key or a login
    exists, else offline; the environment variable ``WANDB_MODE`` overrides this. A run that goes on after an
    interruption keeps its id: online it stays one run, offline it gets one more folder, which ``wandb sync``
    uploads after the first.

    Args:
        folder: the run folder.
        project: W&B project; None for ``WANDB_PROJECT``, else ``ftc``. W&B's sweep agent has its own.
        group: W&B group, which the jobs of a sweep share; None for ``WANDB_RUN_GROUP``.
        finish_timeout: seconds to wait at the end for uploads; the rest stays in the folder.
        artifacts: names of `ARTIFACTS` to send at the end.
    """
    import wandb

    arguments: dict[str, Any] = {
        # An agent has made the run already, by this variable.
        "id": None if os.environ.get("WANDB_RUN_ID") else _own_id(Path(folder)),
        "resume": "allow",
        "dir": os.environ.get("WANDB_DIR") or folder,
        "project": _project(project),
        "group": group or os.environ.get("WANDB_RUN_GROUP") or None,
        "name": os.environ.get("WANDB_NAME") or Path(folder).name,
        "mode": wandb_mode(),
        "settings": wandb.Settings(init_timeout=30, finish_timeout=finish_timeout, silent=True),
    }
    # W&B must not stop a training: where it cannot do what it is asked, it does less.
    for mode in dict.fromkeys((arguments["mode"], "offline", "disabled")):
        try:
            run = wandb.init(**{**arguments, "mode": mode})
            break
        except Exception as error:  # W&B's errors share no base class
            rank_zero_warn(
                f"W&B does not answer ({_reason(error)}); logging {_LESS.get(mode, 'nothing there')}"
            )
            # Its process still knows the run by this id.
            wandb.teardown()
    else:
        return DummyLogger()
    logger = _Wandb(experiment=run, save_dir=folder)
    logger.artifacts = tuple(artifacts)
    _forgive(logger, run, "log", "define_metric", "finish")
    for stage in ("val", "test"):
        run.define_metric(f"{stage}/epoch", hidden=True)
        run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
    return logger


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _own_id(folder: Path) -> str:
    """The id of the run folder's W&B run, made once."""
    known = folder / "wandb" / "run_id"
    if not known.is_file() or not re.fullmatch(r"[0-9a-f]{8}", known.read_text(errors="replace")):
        with written_whole(known) as temporary:
            temporary.write_text(secrets.token_hex(4))
    return known.read_text()


def _project(asked: str | None) -> str | None:
    """The W&B project; None where a sweep's agent has chosen it."""
    return None if os.environ.get("WANDB_SWEEP_ID") else _or_variable(asked, "WANDB_PROJECT", "ftc")


def _or_variable(value: str | None, variable: str, default: str) -> str:
    return value or os.environ.get(variable) or default


def _forgive(logger: Logger, owner: Any, *names: str) -> None:
    """Let no call of these methods end the training, see `forgiving`."""
    for name in names:
        setattr(owner, name, forgiving(logger, getattr(owner, name)))


def tensorboard_logger(folder: str) -> Logger:
    """A logger that writes TensorBoard's files into ``tensorboard/`` of the run folder.

    Args:
        folder: the run folder.
    """
    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)


class _MLflow(MLFlowLogger):
    """MLflow's logger, with the names of the artifacts that were asked for.

    Lightning ends the MLflow run with every stage of a run; here `closing` ends it.
    """

    artifacts: Sequence[str] = ()

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Leave the run as it is."""


def mlflow_logger(
    folder: str,
    store: str,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    group: str | None = None,
    artifacts: Sequence[str] = (),
) -> Logger:
    """A logger whose MLflow run is named as the run folder.

    A run that goes on after an interruption goes on in MLflow as well. Where MLflow does not answer, a
    warning says so and nothing is logged there.

    Args:
        folder: the run folder.
        store: folder of a database and of the artifacts, which runs share, for no tracking URI.
        tracking_uri: where MLflow logs to; None for ``MLFLOW_TRACKING_URI``, else ``store``.
        experiment: MLflow experiment; None for ``MLFLOW_EXPERIMENT_NAME``, else ``ftc``.
        group: a tag that the jobs of a sweep share.
        artifacts: names of `ARTIFACTS` to send at the end.
    """
    import mlflow  # which sets the levels of its own messages

    for talker in (mlflow.__name__, MLFlowLogger.__module__):
        # They tell of tables and experiments that they make.
        logging.getLogger(talker).setLevel(logging.ERROR)
    here = Path(store).resolve()
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    try:
        if not uri:
            here.mkdir(parents=True, exist_ok=True)
        logger = _MLflow(
            experiment_name=_or_variable(experiment, "MLFLOW_EXPERIMENT_NAME", "ftc"),
            run_name=Path(folder).name,
            tracking_uri=uri or f"sqlite:///{here / 'mlflow.db'}",
            tags={"group": group} if group else None,
            artifact_location=None if uri else (here / "artifacts").as_uri(),
        )
        _begin(logger, Path(folder) / "mlflow" / "run_id")
    except Exception as error:  # those of its stores share no base class
        rank_zero_warn(f"MLflow does not answer ({_reason(error)}); logging nothing there")
        return DummyLogger()
    logger.artifacts = tuple(artifacts)
    return logger


def _begin(logger: MLFlowLogger, known: Path) -> None:
    """Go on with the MLflow run that a file names, or begin one and write the file."""
    from mlflow.exceptions import MlflowException

    if known.is_file():
        logger._run_id = known.read_text(errors="replace")
        with suppress(MlflowException):  # of another store, or removed from this one
            logger.experiment.update_run(logger.run_id, status="RUNNING")
            return
        logger._run_id = None
    with written_whole(known) as temporary:
        temporary.write_text(str(logger.run_id))


def logger_factories(config: TrainConfig) -> list[Callable[[], Logger]]:
    """Functions that make the run's loggers, to be called once its folder exists.

    Raises:
        InputError: a target that does not exist or does not take its arguments, an artifact that is none, or
            a package that is not installed.
    """
    factories: list[Callable[[], Logger]] = []
    for name, node in (config.logger or {}).items():
        factory = make(f"logger.{name}", {**node, "_partial_": True})
        try:
            inspect.signature(factory).bind()
        except (TypeError, ValueError) as error:
            reason = f"does not take these arguments ({error})"
            raise InputError(f"logger.{name}={node['_target_']}: {reason}") from error
        _check(f"logger.{name}", factory)
        factories.append(partial(_made, f"logger.{name}={node['_target_']}", factory))
    return factories


def _check(key: str, factory: partial[Logger]) -> None:
    """Refuse now what would be refused when the run's first stage is done."""
    if factory.func is wandb_logger:
        wandb_mode()
    for package in _PACKAGES.get(factory.func, ()):
        require(package, "trackers", key)
    artifacts = factory.keywords.get("artifacts", ()) if factory.func in (wandb_logger, mlflow_logger) else ()
    for name in artifacts if isinstance(artifacts, list | tuple) else [artifacts]:
        if name not in ARTIFACTS:
            choices = ", ".join(ARTIFACTS)
            raise InputError(f"{key}.artifacts={name}: no such artifact; choose from {choices}")


# SQLAlchemy and Alembic are what a database takes; MLflow itself does without them.
_PACKAGES: dict[Callable[..., Any], tuple[str, ...]] = {
    tensorboard_logger: ("tensorboard",),
    mlflow_logger: ("mlflow", "sqlalchemy", "alembic"),
}


def _made(key: str, factory: Callable[[], Logger]) -> Logger:
    """A logger; what it does not take as values is told with its key."""
    try:
        logger = factory()
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{key}: does not take these values ({' '.join(str(error).split())})") from error
    if not isinstance(logger, MetricsFile):  # which the run itself needs
        _forgive(logger, logger, "log_metrics", "log_hyperparams", "log_graph", "save", "finalize")
    return logger


@contextmanager
def closing(makers: Sequence[Callable[[], Logger]]) -> Iterator[list[Logger]]:
    """Make loggers for the block and close them after it, so that the next job gets its own runs.

    Args:
        makers: functions of `logger_factories`.

    Yields:
        The loggers.
    """
    loggers = [make_logger() for make_logger in makers]
    finished = False
    try:
        yield loggers
        finished = True
    finally:
        for logger in loggers:
            # The run's own file is saved with every stage; once there are results, its folder stays as it is.
            if not isinstance(logger, MetricsFile):
                forgiving(logger, tracker(logger).close)(finished)


def asked_artifacts(logger: Logger) -> Sequence[str]:
    """Names of `ARTIFACTS` that a logger is to be sent."""
    names: Sequence[str] = getattr(logger, "artifacts", ())
    return names


def log_record(loggers: Sequence[Logger], record: RunRecord, folder: Path, step: int) -> None:
    """Send the results of a finished run to its trackers.

    Args:
        loggers: the run's loggers; that of ``metrics.csv`` gets nothing, since ``results.json`` is beside it.
        record: the run's record.
        folder: the run folder, with all its files.
        step: training steps that the run took.
    """
    for logger in loggers:
        if not isinstance(logger, MetricsFile):
            panel = ResultsPanel(
                step,
                {name: float(value) for name, value in record.scalars().items() if value is not None},
                ["stage", *COLUMNS, "gamma", "lane", "uses"],
                [
                    [
                        name,
                        *(stage.metrics.get(column) for column in COLUMNS),
                        stage.gamma,
                        stage.lane,
                        ", ".join(stage.uses),
                    ]
                    for name, stage in record.rows()
                ],
                sorted((folder / "figures").glob("*.png")),
                {name: [folder / file for file in ARTIFACTS[name]] for name in asked_artifacts(logger)},
            )
            forgiving(logger, tracker(logger).show_results)(panel)
