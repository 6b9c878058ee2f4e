"""The Hugging Face hub, which is not waited for where no network leads to it (no torch)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies

# How long to wait (s) for an answer of the hub's host.
_PATIENCE = 5.0


@contextmanager
def hub_within_reach() -> Iterator[None]:
    """In the block the hub's client looks into its own cache alone, at once, if the hub is out of reach.

    It would ask six times otherwise, with pauses that come to half a minute a file.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    # A proxy knows more of the network than we do.
    constants.HF_HUB_OFFLINE = before or not (getproxies() or _answers(constants.ENDPOINT))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@cache
def _answers(endpoint: str) -> bool:
    """Whether a connection to a host can be made."""
    url = urlsplit(endpoint)
    try:
        with socket.create_connection(
            (url.hostname, url.port or (80 if url.scheme == "http" else 443)), timeout=_PATIENCE
        ):
            return True
    except OSError:
        return False
