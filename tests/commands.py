"""Commands as a user types them, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path

# What would tell a run that its user has a W&B account.
_ACCOUNT = {"WANDB_API_KEY", "WANDB_MODE", "NETRC"}


def run_train(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """`run_module` of ``ftc.train``; the run draws no figures, which take a second, unless it is told to."""
    if not any(argument.startswith("figures=") for argument in arguments):
        # Overrides stand together.
        places = [i for i, argument in enumerate(arguments, 1) if re.match(r"[^-].*=", argument)]
        place = places[-1] if places else len(arguments)
        arguments = (*arguments[:place], "figures=[]", *arguments[place:])
    return run_module("train", folder, *arguments, **environment)


def run_module(module: str, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run ``python -m ftc.<module> …`` in a folder, as somebody without a W&B account.

    The process is a real one that has loaded what most of its time would go into, see `start`. What starts
    further processes by its own command line wants `run_fresh`.
    """
    with tempfile.TemporaryDirectory() as name:
        out, err = Path(name, "out"), Path(name, "err")
        process = start(module, folder, arguments, _stranger(folder, environment), out, err)
        process.join()
        return subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())


def run_fresh(module: str, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """The same in a new interpreter."""
    line = [sys.executable, "-m", f"ftc.{module}", *arguments]
    env = _stranger(folder, environment)
    return subprocess.run(line, cwd=folder, env=env, text=True, capture_output=True, stdin=subprocess.DEVNULL)


def as_between_gpus(folder: Path) -> str:
    """A ``PYTHONPATH`` with which processes refuse to join tensors outside a trainer's loops.

    There what is to be joined lies on the CPU, and NCCL, which joins GPUs, takes nothing from there.
    """
    (folder / "sitecustomize.py").write_text(
        """
import sys
import torch.distributed as distributed


def refusing(join):
    def checked(*arguments, **options):
        frame = sys._getframe()
        while frame is not None:
            if "/lightning/" in frame.f_code.co_filename:
                return join(*arguments, **options)
            frame = frame.f_back
        raise RuntimeError("no backend type associated with device type cpu")

    return checked


for name in ("all_gather", "all_reduce", "broadcast", "reduce"):
    setattr(distributed, name, refusing(getattr(distributed, name)))
"""
    )
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def start(
    module: str, folder: Path, arguments: tuple[str, ...], environment: dict[str, str], out: Path, err: Path
) -> BaseProcess:
    """Start a command in a process forked from one that has loaded everything (`tests.warm`).

    Args:
        module: the command.
        folder: folder to run it in.
        arguments: its arguments.
        environment: all of its environment variables.
        out, err: files to which it appends what it prints.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.warm"])
    process = processes.Process(
        target=_command, args=(module, str(folder), arguments, environment, str(out), str(err))
    )
    process.start()
    return process


def _command(
    module: str, folder: str, arguments: tuple[str, ...], environment: dict[str, str], out: str, err: str
) -> None:
    # A session of its own, so that its loaders' processes can be killed with it, as SLURM does.
    os.setsid()
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # As ``python -m`` has them: modules of the folder, and the platform's own way to start processes.
    sys.path.insert(0, folder)
    multiprocessing.set_start_method(None, force=True)
    sys.argv = [f"ftc.{module}", *arguments]
    import_module("torch").set_num_threads(int(environment["OMP_NUM_THREADS"]))
    import_module(f"ftc.{module}").main()


def _stranger(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if name not in _ACCOUNT}
    return known | {"HOME": str(folder)} | environment
