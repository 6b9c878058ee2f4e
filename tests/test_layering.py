"""Imports go downward only, room by room: a room may import what its line names, and nothing is left out."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ftc
from ftc.cli.front import COMMANDS

ROOT = Path(ftc.__file__).parent

# Folders and root modules, from the ground up → the rooms that each may import.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "hub": set(),
    "machine": {"errors"},
    "partition": {"errors", "files"},
    "results": {"errors", "files", "partition"},
    "functional": {"errors", "partition"},
    "data": {"errors", "files", "hub", "partition"},
    "models": {"errors", "files", "hub", "partition"},
    "reporting": {"files", "results"},
    "metrics": {"errors", "functional", "partition"},
    "calibrators": {"errors", "functional", "partition", "results"},
    "benchmarks": {"data", "errors", "files", "hub"},
    "finetune": {"data", "errors", "functional", "models", "partition"},
    "evaluation": {"calibrators", "errors", "functional", "metrics", "partition", "results"},
    "export": {"calibrators", "data", "errors", "files", "functional", "models", "partition", "results"},
    "config": {"benchmarks", "errors", "files", "partition", "results"},
    "callbacks": {"calibrators", "data", "errors", "evaluation", "files", "functional", "metrics"}
    | {"partition", "reporting"},
    "cli": {"config", "errors", "files", "reporting", "results"},
    "assembly": {"callbacks", "calibrators", "config", "data", "errors", "evaluation", "files", "finetune"}
    | {"machine", "models", "partition", "reporting", "results"},
    "runs": {
        "assembly",
        "calibrators",
        "callbacks",
        "cli",
        "config",
        "data",
        "errors",
        "evaluation",
        "export",
        "files",
    }
    | {"finetune", "functional", "metrics", "models", "partition", "reporting", "results"},
    # Entry points; the launcher finds a command's work in the room runs, under the command's name.
    **{command: {"cli"} for command in ("__main__", *COMMANDS)},
    "doctor": {"cli", "machine"},
    "prepare": {"benchmarks", "cli", "errors", "files"},
    # The public names, imported on first use.
    "__init__": {"callbacks", "data", "errors", "finetune", "models", "partition"},
}

UPPER = {"lightning", "hydra", "omegaconf", "wandb"}
# Room, or file in it → libraries that it does without.
WITHOUT: dict[str, set[str]] = {
    "errors": {"torch", "numpy", "pydantic", *UPPER},
    "files": {"torch", "numpy", *UPPER},
    "results": {"torch", "numpy", *UPPER},
    "partition": {"torchmetrics", "timm", "torchvision", *UPPER},
    "functional": {"torchmetrics", "timm", "torchvision", *UPPER},
    "metrics": {"timm", "torchvision", *UPPER},
    "calibrators": {"torchmetrics", "timm", "torchvision", *UPPER},
    "evaluation": {"timm", "torchvision", *UPPER},
    "machine": {"numpy", "timm", "torchvision", "lightning", "hydra", "omegaconf"},
    "models": UPPER,
    "data": {"hydra", "omegaconf", "wandb"},
    "benchmarks": UPPER,
    "export": UPPER,
    "finetune": {"hydra", "omegaconf", "wandb"},
    "callbacks": {"hydra", "omegaconf"},
    "reporting": {"torch", "timm", *UPPER},
    "config": {"torch", "numpy", "torchmetrics", "timm", "lightning", "hydra", "wandb"},
    "cli": {"torch", "numpy", "torchmetrics", "timm", "lightning", "wandb"},
}
# What answers wrong input within two seconds is imported without torch.
TORCH_FREE = (
    *("ftc", "ftc.partition", "ftc.results", "ftc.benchmarks.catalogue"),
    *("ftc.config.commands", "ftc.cli.launch", "ftc.train", "ftc.prepare", "ftc.doctor"),
)
CORE = ("ftc.functional", "ftc.metrics", "ftc.calibrators", "ftc.evaluation.summary")


def room_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


FILES = sorted(path for path in ROOT.rglob("*.py") if "conf" not in path.relative_to(ROOT).parts)


def test_every_room_and_root_module_is_known():
    assert {room_of(path) for path in FILES} == set(ROOMS)


def test_rooms_import_downward_only():
    wrong = []
    for path in FILES:
        room = room_of(path)
        for name in imports(path):
            first, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if first == "ftc" and other and other not in ROOMS[room] | {room}:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_floors_are_few_and_there_is_no_circle():
    floors: dict[str, int] = {}

    def floor(room: str, above: tuple[str, ...] = ()) -> int:
        assert room not in above, f"circle: {' → '.join((*above, room))}"
        if room not in floors:
            floors[room] = 1 + max((floor(other, (*above, room)) for other in ROOMS[room]), default=0)
        return floors[room]

    assert max(floor(room) for room in ROOMS) <= 9


def test_rooms_do_without_the_libraries_of_higher_floors():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FILES
        for name in imports(path)
        if name.split(".")[0] in WITHOUT.get(room_of(path), set())
        # The unlabelled lane's and W&B's own: imported where they are used.
        and (path.name, name) not in {("semantic.py", "torch"), ("semantic.py", "numpy")}
    ]
    assert not wrong


@pytest.mark.parametrize("module", TORCH_FREE)
def test_what_checks_input_is_imported_without_torch(module):
    assert _loaded(f"import {module}", ("torch", "numpy", "lightning")) == "[]"


def test_calibration_core_loads_without_lightning_and_hydra():
    code = f"from ftc import ClassPartition; import {', '.join(CORE)}"
    assert _loaded(code, ("lightning", "hydra", "timm", "wandb")) == "[]"


def _loaded(code: str, modules: tuple[str, ...]) -> str:
    code = f"import sys; {code}; print([m for m in {modules} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    return out.stdout.strip()
