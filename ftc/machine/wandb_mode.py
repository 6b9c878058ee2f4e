"""Whether W&B is online: decided by variables and logins of this machine, without network (no torch)."""

from __future__ import annotations

import netrc
import os
from urllib.parse import urlsplit

from ftc.errors import InputError

_MODES = ("online", "offline", "disabled", "shared")


def wandb_mode() -> str:
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
    return asked or ("online" if has_credentials() else "offline")


def has_credentials() -> bool:
    """Whether W&B could log in without asking: an API key in the environment or in netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    host = urlsplit(wandb.Settings().base_url).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
