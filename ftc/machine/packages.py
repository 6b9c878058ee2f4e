"""Installed packages, held against what ftc declares; nothing is imported."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.markers import Marker
from packaging.requirements import Requirement as Declared
from packaging.version import InvalidVersion


@dataclass(frozen=True)
class Requirement:
    """A declared requirement and what is installed.

    Attributes:
        name: name of the package.
        wanted: range of versions, such as ``>=2.6``; empty for any.
        installed: the installed version; None where there is none.
        holds: whether it is in the range.
    """

    name: str
    wanted: str
    installed: str | None
    holds: bool

    @property
    def mend(self) -> str:
        """The command that mends it."""
        return f"pip install '{self.name}{self.wanted}'"


@dataclass(frozen=True)
class Extra:
    """An optional part of a package.

    Attributes:
        name: its name.
        missing: its requirements that do not hold.
        mend: the command that installs it.
    """

    name: str
    missing: list[Requirement]
    mend: str


@dataclass(frozen=True)
class Installation:
    """A package and all that it declares to need.

    Attributes:
        version: its version; None where it is not installed, and nothing else is known.
        folder: the folder that its code runs from.
        editable: whether it is installed as the code that lies in a folder.
        installed: the folder that it is installed as; another one than ``folder`` where that one comes first
            on Python's path. None where it is not installed.
        commit: the Git commit of the code, ``-dirty`` with changes; None where Git does not keep the code.
        requirements: what it always needs, by name.
        extras: its optional parts, by name.
    """

    version: str | None
    folder: str
    editable: bool
    installed: str | None
    commit: str | None
    requirements: list[Requirement] = field(default_factory=list)
    extras: list[Extra] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether it is installed, with all that it always needs."""
        return self.version is not None and all(requirement.holds for requirement in self.requirements)


def installation(package: str, folder: Path) -> Installation:
    """What is known of an installed package.

    Args:
        package: its name.
        folder: the folder that its code runs from.
    """
    try:
        found = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return Installation(None, str(folder), False, None, _commit(folder))
    origin = _editable(found)
    names = sorted(found.metadata.get_all("Provides-Extra") or ())
    return Installation(
        found.version,
        str(folder),
        origin is not None,
        str(found.locate_file(package) if origin is None else origin / package),
        _commit(folder),
        list(requirements(package)),
        [Extra(name, _missing(package, name), f"pip install '{package}[{name}]'") for name in names],
    )


def requirements(package: str, extra: str = "") -> Iterator[Requirement]:
    """What an installed package needs on this machine, extras of other packages that it names included.

    Args:
        package: its name.
        extra: for what one of its extras needs beyond the rest.
    """
    for line in sorted(metadata.requires(package) or ()):
        declared = Declared(line)
        if _applies(declared.marker, extra):
            requirement = _checked(declared)
            yield requirement
            for other in sorted(declared.extras) if requirement.installed else ():
                yield from requirements(declared.name, other)


def _applies(marker: Marker | None, extra: str) -> bool:
    always = marker is None or marker.evaluate({"extra": ""})
    if not extra or marker is None:
        return always and not extra
    return not always and marker.evaluate({"extra": extra})


def _checked(declared: Declared) -> Requirement:
    installed, holds = None, False
    try:
        installed = metadata.version(declared.name)
        holds = declared.specifier.contains(installed, prereleases=True)
    except (metadata.PackageNotFoundError, InvalidVersion):
        pass
    return Requirement(declared.name, str(declared.specifier), installed, holds)


def _missing(package: str, extra: str) -> list[Requirement]:
    return [requirement for requirement in requirements(package, extra) if not requirement.holds]


def _editable(found: metadata.Distribution) -> Path | None:
    """The folder of an editable installation; None for any other."""
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    editable = origin.get("dir_info", {}).get("editable", False)
    return Path(url2pathname(urlsplit(origin["url"]).path)) if editable else None


def _commit(folder: Path) -> str | None:
    """The commit of a folder's files; None where they are no part of a Git checkout, or there is no Git."""
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # as in an environment that lies inside a checkout of something else
    return _git(folder, "describe", "--always", "--dirty", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    line = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(line, text=True, capture_output=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
