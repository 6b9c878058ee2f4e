"""From a configuration node to the object that its ``_target_`` names."""

from __future__ import annotations

from typing import Any

import hydra.utils
from hydra.errors import InstantiationException

from ftc.errors import InputError


def make(key: str, node: dict[str, Any]) -> Any:
    """Build what a configuration node's ``_target_`` names.

    Raises:
        InputError: the target does not exist or refuses its arguments; the message starts with the key.
    """
    try:
        return hydra.utils.instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split("\nfull_key")[0].split())
        raise InputError(f"{key}={node['_target_']}: {reason}") from error
