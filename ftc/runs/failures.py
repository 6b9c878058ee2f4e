"""Failures of the machine during a run, each as one line that says what to do."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ftc.config.commands import TrainConfig
from ftc.errors import InputError


@contextmanager
def explained(config: TrainConfig) -> Iterator[None]:
    """Turn failures of the machine into one line that says what to do; let other errors pass.

    Raises:
        InputError: the accelerator's memory or the disk is full, or a loader's process was killed.
    """
    try:
        yield
    except InputError as error:
        # A loader's process wraps what it raises into a report of its own.
        if "Original Traceback" not in str(error):
            raise
        raise InputError(str(error).strip().splitlines()[-1].partition(": ")[2]) from error
    except torch.OutOfMemoryError as error:
        size, steps = config.data.batch_size, config.trainer.accumulate_grad_batches
        raise InputError(
            f"data.batch_size={size}: does not fit into the accelerator's memory; halve it and set "
            f"trainer.accumulate_grad_batches={2 * steps}, or choose trainer.precision=bf16-mixed "
            f"(evaluation: data.eval_batch_size={config.data.eval_batch_size})"
        ) from error
    except RuntimeError as error:
        if not re.search(r"DataLoader worker .*(killed|exited)", str(error)):
            raise
        raise InputError(
            f"data.num_workers={config.data.num_workers}: a loader's process was killed, usually for lack of "
            "memory; choose fewer"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"output_dir={config.output_dir}: no room left on the disk for "
            f"{error.filename or 'what the run writes'}; earlier files are intact; make room and run again"
        ) from error
