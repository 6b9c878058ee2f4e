"""Loggers that need more than Lightning's defaults."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn


def csv_logger(folder: str) -> CSVLogger:
    """``metrics.csv`` in the run folder itself."""
    return CSVLogger(save_dir=folder, name="", version="")


def wandb_logger(folder: str, project: str = "ftc", group: str | None = None) -> WandbLogger:
    """A W&B run named as its run folder. It never prompts, and a missing network never stops a training.

    Online where an API key or a login exists, else offline; the environment's ``WANDB_MODE`` wins.

    Args:
        folder: the run folder; the run's name is the folder's.
        project: W&B project.
        group: the jobs of a sweep share one.
    """
    import wandb

    mode = "online" if _has_credentials() else "offline"
    arguments: dict[str, Any] = {
        "dir": folder,
        "project": project,
        "group": group,
        "name": Path(folder).name,
        "mode": os.environ.get("WANDB_MODE", mode),
        "settings": wandb.Settings(init_timeout=30, silent=True),
    }
    try:
        run = wandb.init(**arguments)
    except wandb.errors.Error as error:
        reason = str(error).splitlines()[0]
        rank_zero_warn(f"W&B does not answer ({reason}); logging offline into {folder}")
        run = wandb.init(**{**arguments, "mode": "offline"})
    for stage in ("val", "test"):
        run.define_metric(f"{stage}/epoch", hidden=True)
        run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
    return WandbLogger(experiment=run, save_dir=folder)


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
