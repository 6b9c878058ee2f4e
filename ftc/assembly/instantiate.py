"""Build the object that the ``_target_`` of a configuration node names."""

from __future__ import annotations

import pkgutil
from contextlib import suppress
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException

from ftc.config.targets import is_itself
from ftc.errors import InputError


def make(key: str, node: dict[str, Any]) -> Any:
    """Build the object that a node's ``_target_`` names.

    Args:
        key: the node's key in the configuration, for messages.
        node: the ``_target_`` and its arguments.

    Raises:
        InputError: the target does not exist or refuses its arguments; the message starts with the key.
    """
    misled = False
    with suppress(ImportError, AttributeError, ValueError):  # which instantiate explains
        misled = not is_itself(node["_target_"], pkgutil.resolve_name(node["_target_"]))
    if misled:
        raise InputError(f"{key}={node['_target_']}: is no part of that module; name what it defines")
    try:
        return hydra.utils.instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split("\nfull_key")[0].split())
        raise InputError(f"{key}={node['_target_']}: {reason}") from error
