"""An examination of this machine and installation, as text and as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import ftc
from ftc.errors import InputError
from ftc.machine.devices import Device, Torch, torch_here
from ftc.machine.folders import Folder, folder, parts
from ftc.machine.packages import Installation, Requirement, installation
from ftc.machine.variables import home, relevant, shown
from ftc.machine.wandb_mode import has_credentials, wandb_mode

_COLUMNS = 80


@dataclass(frozen=True)
class System:
    """The machine and its Python.

    Attributes:
        platform: operating system, kernel and C library.
        python: version of Python.
        executable: the program that runs.
        cores: cores that this process may use.
        omp_num_threads: ``OMP_NUM_THREADS``; None where it is not set.
    """

    platform: str
    python: str
    executable: str
    cores: int
    omp_num_threads: str | None


@dataclass(frozen=True)
class Wandb:
    """W&B, as a run would find it.

    Attributes:
        version: the installed version; None where there is none.
        logged_in: whether an API key or a login exists; None where that cannot be told.
        mode: ``online``, ``offline``, ``disabled`` or ``shared``; None where a run would refuse.
        folder: where runs keep their W&B files.
        error: why a run would refuse.
    """

    version: str | None
    logged_in: bool | None
    mode: str | None
    folder: str
    error: str | None


@dataclass(frozen=True)
class Examination:
    """All that is told, see the types of the fields; both forms of it have ``~`` for the home folder."""

    ftc: Installation
    system: System
    torch: Torch
    wandb: Wandb
    folders: tuple[Folder, ...]
    environment: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether ftc has all that it always needs, and torch can be imported."""
        return self.ftc.holds and self.torch.error is None

    def json(self) -> str:
        """JSON, with the fields' names; sizes are bytes."""
        content = {"holds": self.holds, **asdict(self)}
        return shown(json.dumps(content, indent=1, ensure_ascii=False))

    def text(self) -> str:
        """Sections for people, at most 80 columns wide where no word is longer."""
        sections = {
            "System": _system(self),
            "Requirements": _requirements(self.ftc),
            "Extras": _extras(self.ftc),
            "Folders": _folders(self.folders),
            "W&B": _wandb(self.wandb),
            "Environment": self.environment or {"": "none of the variables that matter is set"},
        }
        blocks = [f"{title}\n{_aligned(lines)}" for title, lines in sections.items() if lines]
        return shown("\n\n".join([*blocks, _verdict(self)]))


def examined() -> Examination:
    """Look at this machine, without network and without writing anything."""
    environment = relevant(os.environ)
    torch = torch_here()
    return Examination(
        installation("ftc", Path(ftc.__file__).parent),
        System(
            platform.platform(),
            platform.python_version(),
            sys.executable,
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            os.environ.get("OMP_NUM_THREADS"),
        ),
        torch,
        _wandb_here(),
        tuple(_folders_here(torch)),
        environment,
    )


def _wandb_here() -> Wandb:
    place = os.environ.get("WANDB_DIR") or "wandb/ in the folder of each run"
    try:
        version = metadata.version("wandb")
    except metadata.PackageNotFoundError:
        return Wandb(None, None, None, place, "not installed")
    try:
        logged_in = has_credentials()
    except Exception as error:  # whatever a broken package raises when it is imported
        return Wandb(version, None, None, place, f"cannot be asked ({error})")
    try:
        return Wandb(version, logged_in, wandb_mode(), place, None)
    except InputError as error:
        return Wandb(version, logged_in, None, place, str(error))


def _folders_here(torch: Torch) -> Iterator[Folder]:
    yield folder("outputs", Path("outputs"))
    cache = folder("outputs/cache", Path("outputs/cache"))
    yield cache
    yield from parts(cache)
    others = {"Hugging Face hub": _hub(), "torch hub, timm": torch.hub, "matplotlib": _of_matplotlib()}
    for name, path in others.items():
        if path is not None:
            yield folder(name, Path(path))


def _hub() -> str | None:
    """The folder of what comes from the Hugging Face hub; None without its package."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except Exception:  # a broken package raises anything; the requirements tell of one that is missing
        return None
    return str(HF_HUB_CACHE)


def _of_matplotlib() -> str | None:
    """The folder of matplotlib's list of fonts, which matplotlib itself would make when it is asked."""
    given = os.environ.get("MPLCONFIGDIR")
    if given or home() is None:
        return given
    if sys.platform == "linux":
        return f"{os.environ.get('XDG_CACHE_HOME') or f'{home()}/.cache'}/matplotlib"
    return f"{home()}/.matplotlib"


def _system(examination: Examination) -> dict[str, str]:
    code, system, torch = examination.ftc, examination.system, examination.torch
    lines = {
        "ftc": f"{code.version or 'not installed'}{f', commit {code.commit}' if code.commit else ''}",
        "code": code.folder,
        "installed": f"{'editable' if code.editable else 'as a copy'}{_elsewhere(code)}",
        "Python": system.python,
        "program": system.executable,
        "platform": system.platform,
        "CPU": f"{_counted(system.cores, 'usable core')}, {_threads(torch)}"
        f" (OMP_NUM_THREADS {'is not set' if system.omp_num_threads is None else system.omp_num_threads})",
        "torch": f"cannot be imported: {torch.error}"
        if torch.error
        else f"{torch.version} for {torch.build}",
    }
    if code.version is None:
        del lines["installed"]
    if torch.error is None:
        lines["devices"] = "\n".join(map(_device, torch.devices)) or "none but the CPU"
    if torch.warnings:
        lines["warnings"] = "\n".join(torch.warnings)
    return lines


def _elsewhere(code: Installation) -> str:
    """Where the code that runs is not the one that is installed, a remark on it."""
    if code.installed is None or Path(code.installed).resolve() == Path(code.folder).resolve():
        return ""
    return f", but as another folder: {code.installed}"


def _threads(torch: Torch) -> str:
    return "threads unknown" if torch.threads is None else _counted(torch.threads, "thread")


def _device(device: Device) -> str:
    return f"{device.name}, {_bytes(device.memory)}, {'bf16' if device.bf16 else 'no bf16'}"


def _requirements(code: Installation) -> dict[str, str]:
    width = max((len(requirement.installed or "") for requirement in code.requirements), default=0)
    return {
        requirement.name: f"{requirement.installed or '':<{width}}  {_held(requirement)}"
        for requirement in code.requirements
    }


def _held(requirement: Requirement) -> str:
    wanted = requirement.wanted or "any"
    if requirement.holds:
        return wanted
    return f"WRONG, wants {wanted}" if requirement.installed else f"MISSING, wants {wanted}"


def _extras(code: Installation) -> dict[str, str]:
    return {
        extra.name: "complete"
        if not extra.missing
        else f"lacks {', '.join(r.name + r.wanted for r in extra.missing)}: {extra.mend}"
        for extra in code.extras
    }


def _folders(folders: tuple[Folder, ...]) -> dict[str, str]:
    return {
        found.name: f"{_size(found)}, {'writable' if found.writable else 'NOT WRITABLE'}, "
        f"{'unknown' if found.free is None else _bytes(found.free)} free"
        + ("" if found.path == found.name else f"\n{found.path}")
        for found in folders
    }


def _size(found: Folder) -> str:
    if found.state != "there":
        return found.state
    return f"{'' if found.whole else 'more than '}{_bytes(found.size)}"


def _wandb(wandb: Wandb) -> dict[str, str]:
    logged_in = {True: "yes", False: "no", None: "unknown"}[wandb.logged_in]
    return {
        "version": wandb.version or "none",
        "logged in": logged_in,
        "mode": wandb.mode or f"none: {wandb.error}",
        "folder": wandb.folder,
    }


def _verdict(examination: Examination) -> str:
    """The last lines: what does not hold, each with the mend."""
    code = examination.ftc
    if code.version is None:
        return "ftc is not installed, so that its requirements are not known: pip install -e ."
    wrong = [requirement.mend for requirement in code.requirements if not requirement.holds]
    if wrong:
        return "Requirements that do not hold:\n" + "\n".join(f"  {mend}" for mend in wrong)
    if examination.torch.error:
        return f"torch cannot be imported: {examination.torch.error}"
    return "All requirements hold."


def _aligned(lines: dict[str, str]) -> str:
    """Names and their texts in two columns, long texts over several lines."""
    width = 4 + max(map(len, lines))
    wrapped: list[str] = []
    for name, text in lines.items():
        indent = f"  {name}".ljust(width)
        for line in text.split("\n"):
            wrapped += textwrap.wrap(
                line,
                _COLUMNS,
                initial_indent=indent,
                subsequent_indent=" " * width,
                break_long_words=False,
                break_on_hyphens=False,
            ) or [indent.rstrip()]
            indent = " " * width
    return "\n".join(wrapped)


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _bytes(number: float) -> str:
    if number < 1000:
        return _counted(int(number), "byte")
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 1000:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} TB"
