"""Pages whose blocks are executed in order in one folder, as somebody who follows them would.

Bash runs a block as it stands. Programs first on its PATH ask `Walk` what to do: run the command, shortened
and with stand-ins for what a test has not got, or say why it is not run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from threading import Thread
from typing import Any

from ftc.benchmarks.catalogue import BENCHMARKS
from tests.commands import start
from tests.docs import caller
from tests.docs.blocks import ROOT, Block
from tests.docs.rules import ASKED, FRESH, needs_files, reason, shortened
from tests.docs.shell import of_ftc
from tests.docs.stand_ins import PLACES, StandIns, filled

# No program, since Lightning would take us for SLURM.
_SLURM = 'srun() { "$@"; }\n'
PAPER = "Fine-Tuning-Is-Fine-If-Calibrated"


def is_executed(block: Block) -> bool:
    """Whether a walk executes a block; code that needs no files is executed without one."""
    return block.language == "bash" or (block.language == "python" and needs_files(block))


@dataclass
class Walk:
    """The way along one page.

    Args:
        folder: the folder in which its blocks are executed.
        things: what stands in for things that are not there.

    Attributes:
        said: what was not done as it stands, a line each.
        failures: blocks that failed, with what they printed.
    """

    folder: Path
    things: StandIns
    said: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    place: str = ""

    def along(self, blocks: list[Block]) -> None:
        """Execute blocks in order, beside the files of a clone that they may name."""
        (self.folder / "docs").symlink_to(ROOT / "docs")
        with self._asked() as environment:
            for block in blocks:
                self.place = block.place
                if block.file is not None:
                    path = self.folder / block.file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(block.text)
                if block.language == "yaml":
                    self._give(block.text, self.folder)
                if block.language == "bash":
                    names = {
                        "run": self._latest("*/results.json"),
                        "sweep": self._latest("sweeps/*/sweep.csv"),
                    }
                    text = filled(block.text, **{key: name for key, name in names.items() if name})
                    self._execute(["bash", "-ec", _SLURM + text], environment)
                elif is_executed(block):
                    for text in block.texts():
                        self._give(text, self.folder)
                    self._execute([sys.executable, "-c", block.text], environment)

    def _execute(self, words: list[str], environment: dict[str, str]) -> None:
        done = subprocess.run(
            words, cwd=self.folder, env=environment, text=True, capture_output=True, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            self.failures.append(
                f"{self.place}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )

    def _latest(self, pattern: str) -> str | None:
        """Name of the folder of the last file of a pattern in outputs."""
        files = sorted((self.folder / "outputs").glob(pattern), key=lambda file: file.stat().st_mtime)
        return files[-1].parent.name if files else None

    def _give(self, text: str, folder: Path) -> None:
        """Put what a text names into a folder, as far as it is not there."""
        for place, thing in PLACES.items():
            if re.search(rf"(?<![\w./-]){re.escape(place)}(?![\w-])", text):
                self.things.give(thing, folder / place)

    @contextmanager
    def _asked(self) -> Iterator[dict[str, str]]:
        """In the block, the environment whose programs ask us."""
        with tempfile.TemporaryDirectory() as name:
            programs = Path(name, "bin")
            programs.mkdir()
            for program in ASKED:
                script = programs / program
                script.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {caller.__file__} {program} "$@"\n')
                script.chmod(0o755)
            with Listener(str(Path(name, "socket"))) as listener:
                Thread(target=self._listen, args=(listener,), daemon=True).start()
                yield {
                    **{key: value for key, value in os.environ.items() if not key.startswith("WANDB_")},
                    "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                    "PAGES_SOCKET": str(listener.address),
                    "HOME": str(self.folder),
                    "OMP_NUM_THREADS": "1",
                    "CUDA_VISIBLE_DEVICES": "",
                }

    def _listen(self, listener: Listener) -> None:
        while True:
            try:
                connection = listener.accept()
            except OSError:
                return  # closed
            Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        with connection:
            words, folder, environment = connection.recv()
            try:
                answer = self._done(words, Path(folder), environment)
            except BaseException as error:  # the caller waits
                answer = _ended(1, err=f"{type(error).__name__}: {error}\n")
            connection.send(answer)

    def _done(self, words: tuple[str, ...], folder: Path, environment: dict[str, str]) -> dict[str, Any]:
        """Do in a program's place what there is to do, or name the words to run."""
        why = reason(words)
        if why is not None:
            self._say(words, f"not run: {why}")
            if words[1:3] == ("-m", "venv"):
                (folder / words[3] / "bin").mkdir(parents=True)
                (folder / words[3] / "bin" / "activate").touch()
            return _ended()
        ours = of_ftc(words)
        if ours is not None:
            return self._ours(words, *ours, folder, environment)
        if words[:2] == ("git", "clone"):
            return self._cloned(words, folder)
        if words[:2] == ("npm", "pack"):
            return self._packed(words, folder)
        if words[0] == "make":
            return self._made(words, environment)
        front = ("-m", "ftc") if words[0] == "ftc" else ()
        return {"words": [sys.executable, *front, *words[1:]], "environment": environment}

    def _ours(
        self, words: tuple[str, ...], name: str, given: list[str], folder: Path, environment: dict[str, str]
    ) -> dict[str, Any]:
        """Run a command of ftc's, forked from one that has loaded torch where that makes no difference."""
        for word in given:
            if not word.startswith("to="):
                self._give(word, folder)
        for benchmark in BENCHMARKS:
            if name != "prepare" and re.search(rf"(experiment|sweep)=(.*,)?{benchmark}\b", " ".join(given)):
                self.things.give(f"prepared/{benchmark}", folder / "data" / benchmark)
        arguments, said = shortened(name, given, self.things, folder)
        if said:
            self._say(words, f"run with {', '.join(said)}")
        if re.search(FRESH, " ".join(words)):
            started = words[1 : -len(given) - 2] if words[0] == "torchrun" else ()
            by = [sys.executable, *(("-m", "torch.distributed.run", *started) if started else ())]
            return {"words": [*by, "-m", f"ftc.{name}", *arguments], "environment": environment}
        with tempfile.TemporaryDirectory() as place:
            out, err = Path(place, "out"), Path(place, "err")
            process = start(name, folder, tuple(arguments), environment, out, err)
            process.join()
            return _ended(process.exitcode or 0, out.read_text(), err.read_text())

    def _cloned(self, words: tuple[str, ...], folder: Path) -> dict[str, Any]:
        """A replica of the paper's repository, or an empty folder for any other."""
        self._say(words, "a replica for the repository")
        if PAPER in words[2]:
            self.things.give("clone", folder / words[-1])
        else:
            (folder / words[-1]).mkdir()
        return _ended()

    def _packed(self, words: tuple[str, ...], folder: Path) -> dict[str, Any]:
        """The packages that npm would have fetched."""
        self._say(words, "replicas for the packages")
        to = folder / words[words.index("--pack-destination") + 1]
        for package in self.things["original/emoji"].iterdir():
            os.link(package, to / package.name)
        return _ended()

    def _made(self, words: tuple[str, ...], environment: dict[str, str]) -> dict[str, Any]:
        """The target's recipe, with our programs in place of an environment of its own."""
        programs = environment["PATH"].split(os.pathsep)[0]
        own = ["-f", str(ROOT / "Makefile"), f"BIN={programs}", "-o", ".venv/.digits", "-o", ".venv/.dev"]
        return {"words": [str(shutil.which("make")), *own, *words[1:]], "environment": environment}

    def _say(self, words: tuple[str, ...], what: str) -> None:
        self.said.append(f"{self.place}: {' '.join(words)}: {what}")


def _ended(status: int = 0, out: str = "", err: str = "") -> dict[str, Any]:
    return {"status": status, "out": out, "err": err}
