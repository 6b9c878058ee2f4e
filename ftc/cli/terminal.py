"""What commands say, on any terminal: output, one-line errors, plain flags (no Hydra)."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import time
from typing import NoReturn

# How long other local ranks wait (s) before they exit, so that rank 0's message is printed first.
_TURN = 5.0


def show_what_it_can() -> None:
    """What a terminal's encoding lacks, such as γ, is replaced; it must not fail after the work."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def reader_has_gone() -> NoReturn:
    """End quietly where whoever read the output has gone; Python would say so when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1) from None


def interrupted(left: str) -> NoReturn:
    """End as a command that Ctrl-C has ended, with a line on what it leaves."""
    print(f"ftc: interrupted; {left}", file=sys.stderr)
    raise SystemExit(128 + signal.SIGINT) from None


def fail(message: str) -> NoReturn:
    """Print one line per problem on stderr and exit with status 2.

    On each host local rank 0 prints first; when it exits, it or torchrun ends the other processes.
    """
    if int(os.environ.get("LOCAL_RANK", "0")):
        time.sleep(_TURN)
    for line in message.splitlines():
        print(f"ftc: error: {line}", file=sys.stderr)
    raise SystemExit(2)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line like all others."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; see {self.prog} --help")
