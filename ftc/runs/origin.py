"""Where tables and pages come from: the command, the code and the runs."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import ftc
from ftc.files import file_digest
from ftc.results import FILE_NAME
from ftc.runs.finished import FinishedRun


def origin_of(command: str, runs: Sequence[FinishedRun]) -> dict[str, str]:
    """The origin of tables and pages: the command, the commit or version of ftc, a digest of the results."""
    digests = sorted(file_digest(str(run.folder / FILE_NAME)) or "" for run in runs)
    return {
        "command": shlex.join(["python", "-m", f"ftc.{command}", *sys.argv[1:]]),
        "ftc": _commit() or version("ftc"),
        "runs": f"{len(runs)}, sha256 {hashlib.sha256(''.join(digests).encode()).hexdigest()[:16]}",
    }


def _commit() -> str | None:
    """The commit of the checkout that ftc runs from, with a mark where it was changed; None elsewhere."""
    root = Path(ftc.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    asked = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"commit {found.stdout.strip()}"
