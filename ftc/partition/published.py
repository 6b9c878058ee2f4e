"""Class orders and lists of the paper's authors, read from the user's clone of their repository (no torch).

Nothing of the clone is imported or executed.
"""

from __future__ import annotations

import ast
from pathlib import Path, PurePosixPath
from typing import Literal

from ftc.errors import InputError

ORDERS_FILE = "py/HT_HARDCODED.py"


def published_order(repo: Path, name: str) -> tuple[int, ...]:
    """A published class order: seen classes are its first, absent ones its last.

    Args:
        repo: the clone of the paper's repository.
        name: name of the list in ``py/HT_HARDCODED.py``, with or without ``_CLASSES`` at its end, as versions
            of the file differ in that.

    Returns:
        Label ids of the published list files.

    Raises:
        InputError: no such file or list, or not a list of distinct whole numbers.
    """
    lists = _assigned_tensors(repo)
    stem = name.removesuffix("_CLASSES")
    node = lists.get(f"{stem}_CLASSES", lists.get(stem))
    if node is None:
        found = ", ".join(lists) or "none; is it the paper's repository?"
        raise InputError(f"paper_repo={repo}: {ORDERS_FILE} has no list {name}; lists found: {found}")
    try:
        order = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        order = None
    if (
        not isinstance(order, list | tuple)
        or not order
        or any(type(label) is not int or label < 0 for label in order)
        or len(set(order)) < len(order)
    ):
        raise InputError(
            f"paper_repo={repo}: {name} in {ORDERS_FILE} is no list of distinct class ids; "
            "restore the published file"
        )
    return tuple(order)


def published_lists(repo: Path, benchmark: Literal["OfficeHome", "ImageNet"]) -> Path:
    """The folder of a benchmark's list files.

    Raises:
        InputError: the clone has no such folder.
    """
    folder = repo / "asset" / benchmark / "image_list"
    if not folder.is_dir():
        raise InputError(
            f"paper_repo={repo}: no folder {folder.relative_to(repo)}; clone the paper's whole repository"
        )
    return folder


def label_names(lists: Path, pattern: str) -> dict[int, str]:
    """Class names by label: the folders that the listed images lie in.

    A line ``Real_World/Drill/00001.jpg 0`` names label 0 Drill.

    Args:
        lists: folder of list files.
        pattern: glob of the files to read.

    Returns:
        Names by label, labels ascending.

    Raises:
        InputError: no list file, a line that is not ``path LABEL``, or a label with two names.
    """
    files = sorted(lists.glob(pattern))
    if not files:
        raise InputError(f"{lists}: no list file {pattern}; restore the published lists")
    names: dict[int, str] = {}
    for file in files:
        for number, line in enumerate(_read(file).splitlines(), start=1):
            if not line.strip():
                continue
            path, _, label = line.strip().rpartition(" ")
            folder = PurePosixPath(path.strip()).parent.name
            if not folder or not label.isdecimal():
                raise InputError(
                    f"{file}: line {number} is {line!r}; write one image a line, 'folder/image LABEL'"
                )
            if names.setdefault(int(label), folder) != folder:
                raise InputError(
                    f"{file}: line {number} calls label {label} {folder}, earlier lines {names[int(label)]}; "
                    "restore the published lists"
                )
    return dict(sorted(names.items()))


def _assigned_tensors(repo: Path) -> dict[str, ast.expr]:
    """The first argument of every ``NAME = torch.tensor(…)`` at the top of the file, by name."""
    key = f"paper_repo={repo}: "
    text = _read(repo / ORDERS_FILE, key)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise InputError(f"{key}{ORDERS_FILE} is no Python file; restore the published one") from error
    found: dict[str, ast.expr] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        call = statement.value
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("torch.tensor", "tensor") and call.args:
            found |= {target.id: call.args[0] for target in targets if isinstance(target, ast.Name)}
    return found


def _read(file: Path, key: str = "") -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(
            f"{key}no file {file}; give the folder of your clone of the paper's repository"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{key}{file} cannot be read ({type(error).__name__}); restore it") from error
