"""Failures of the machine and errors of other libraries, each as one line that says what to do (no torch)."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftc.config.commands import TrainConfig
from ftc.config.node import Node
from ftc.errors import InputError
from ftc.files import lock_beside

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Keys of the configuration that name places to write to; the first may hold the others.
_PLACES = ("output_dir", "cache_dir", "run_dir", "to")


@contextmanager
def explained(config: Node) -> Iterator[None]:
    """Turn failures of the machine into one line that says what to do; let other errors pass.

    Raises:
        InputError: memory or disk is full, a loader's process was killed, or a file cannot be used.
    """
    try:
        yield
    except InputError as error:
        # A loader's process wraps what it raises into a report of its own.
        if "Original Traceback" not in str(error):
            raise
        raise InputError(str(error).strip().splitlines()[-1].partition(": ")[2]) from error
    except BrokenPipeError:
        raise
    except Exception as error:
        line = _of_memory(error, config) or _of_files(error, config) or _of_lightning(error)
        if line is None:
            raise
        raise InputError(line) from error


def of_file(error: OSError) -> str | None:
    """One line about an error that names a file; None about others."""
    if error.filename is None:
        return None
    return f"{os.fsdecode(error.filename)}: {(error.strerror or type(error).__name__).lower()}"


def _of_memory(error: Exception, config: Node) -> str | None:
    if not isinstance(config, TrainConfig):
        return None
    if type(error).__name__ == "OutOfMemoryError":
        size, steps = config.data.batch_size, config.trainer.accumulate_grad_batches
        return (
            f"data.batch_size={size}: does not fit into the accelerator's memory; halve it and set "
            f"trainer.accumulate_grad_batches={2 * steps}, or choose trainer.precision=bf16-mixed "
            f"(evaluation: data.eval_batch_size={config.data.eval_batch_size})"
        )
    if isinstance(error, RuntimeError) and re.search(r"DataLoader worker .*(killed|exited)", str(error)):
        return (
            f"data.num_workers={config.data.num_workers}: a loader's process was killed, usually for lack of "
            "memory; choose fewer"
        )
    return None


def _of_lightning(error: Exception) -> str | None:
    """What Lightning says of arguments that it looks at late."""
    if type(error).__name__ != "MisconfigurationException":
        return None
    return f"trainer: {' '.join(str(error).split())}"


def _of_files(error: Exception, config: Node) -> str | None:
    number, filename = _cause(error)
    if number is None:
        return None
    if number in _FULL:
        place = "output_dir" if hasattr(config, "output_dir") else "to"
        return (
            f"{place}={getattr(config, place, '')}: no room left on the disk for "
            f"{filename or 'what the run writes'}; earlier files are intact; make room and run again"
        )
    if filename is None:
        return None
    line = f"{filename}: {os.strerror(number).lower()}"
    key = _place(Path(filename), config)
    return line if key is None else f"{line}; choose another {key}"


def _cause(error: Exception) -> tuple[int | None, str | None]:
    """The number of the system's error behind an error, and its file."""
    if isinstance(error, OSError):
        return error.errno, None if error.filename is None else os.fsdecode(error.filename)
    # Native writers put the system's error into words.
    found = re.search(r"os error (\d+)", str(error))
    if found:
        return int(found[1]), None
    if isinstance(error, RuntimeError) and re.search(r"PytorchStreamWriter|inline_container", str(error)):
        return errno.ENOSPC, None
    return None, None


def _place(path: Path, config: Node) -> str | None:
    """The key that led to a file."""
    path = path.absolute()
    for key in _PLACES:
        given = getattr(config, key, None)
        if given is not None:
            folder = Path(given).absolute()
            # What is missing may be in the folder, the folder itself, its lock beside it, or one above it.
            inside, above = path.is_relative_to(folder), folder.is_relative_to(path)
            if inside or above or path == lock_beside(folder):
                return key
    return None
