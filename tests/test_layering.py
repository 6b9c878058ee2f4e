"""Imports go downward only: L0 torch, L1 torchmetrics and timm, L2 Lightning; Hydra stays on top."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ftc

ROOT = Path(ftc.__file__).parent
UPPER = {"lightning", "hydra", "omegaconf", "wandb"}
# Of the data layer, all but the Lightning module.
DATA = (
    "readers",
    "folders",
    "libraries",
    "columns",
    "decode",
    "checks",
    "cache",
    "batched",
    "transforms",
    "sampler",
    "digits",
    "randomness",
    "wilds",
)
# Folder or file → what it must not import.
FORBIDDEN = {
    "partition.py": {"torch", "numpy", "torchmetrics", "timm", *UPPER},
    "config.py": {"torch", "numpy", "torchmetrics", "timm", "lightning", "hydra", "wandb"},
    "input_config.py": {"torch", "numpy", "torchmetrics", "timm", "lightning", "hydra", "wandb"},
    "sweeps.py": {"torch", "numpy", "torchmetrics", "timm", "lightning", "wandb"},
    "optuna_sweeper.py": {"torch", "numpy", "torchmetrics", "timm", "lightning", "wandb"},
    "objectives.py": {"timm", "torchvision", *UPPER},
    "check.py": {"torch", "numpy", "torchmetrics", "timm", "lightning", "hydra", "wandb"},
    "cli.py": {"torch", "numpy", "torchmetrics", "timm", "lightning", "wandb"},
    "node.py": {"torch", "numpy", "torchmetrics", "timm", *UPPER},
    "splits.py": {"torch", "numpy", "torchmetrics", "timm", *UPPER},
    "manifest.py": {"torch", "numpy", "torchmetrics", "timm", *UPPER},
    "published.py": {"torch", "numpy", "torchmetrics", "timm", *UPPER},
    "benchmarks.py": {"torch", "numpy", "torchmetrics", "timm", *UPPER},
    "prepare.py": {"torch", "torchmetrics", "lightning", "wandb"},
    "hub_tables.py": {"torch", "numpy", "torchmetrics", "timm", *UPPER},
    "split_lists.py": {"torch", "numpy", "torchmetrics", *UPPER},
    "semantic.py": {"timm", "torchvision", "torchmetrics", *UPPER},
    "results.py": {"torch", "numpy", "torchmetrics", "timm", *UPPER},
    "evaluation.py": {"timm", "torchvision", *UPPER},
    "saved_logits.py": {"timm", "torchvision", *UPPER},
    "functional": {"torchmetrics", "timm", "torchvision", *UPPER},
    "metrics": {"timm", "torchvision", *UPPER},
    "calibrators": {"torchmetrics", "timm", "torchvision", *UPPER},
    "models": UPPER,
    **{f"data/{name}.py": UPPER for name in DATA},
    "data": {"hydra", "omegaconf", "wandb"},
    "finetune": {"hydra", "omegaconf", "wandb"},
    "calibration": {"hydra", "omegaconf", "wandb"},
    "reporting": {"torch", "timm", *UPPER},
}
# A layer may import from ftc only what lies below or beside it.
ALLOWED_WITHIN = {
    "functional": {"functional", "partition", "errors"},
    "metrics": {"metrics", "functional", "partition", "errors"},
    "calibrators": {"calibrators", "functional", "partition", "errors"},
    "calibration": {
        "calibration",
        "calibrators",
        "evaluation",
        "functional",
        "metrics",
        "partition",
        "errors",
    },
    "evaluation.py": {"calibrators", "functional", "metrics", "partition", "results"},
    "models": {"models", "partition", "errors", "files"},
    "reporting": {"reporting", "results", "errors", "files"},
}


def _files(name: str) -> list[Path]:
    path = ROOT / name
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def _wrong(layers: dict[str, set[str]], crosses: Callable[[str, set[str]], bool]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for layer, names in layers.items()
        for path in _files(layer)
        for name in _imports(path)
        if crosses(name, names) and (path.name, name) != ("charts.py", "wandb")
    ]


def test_layers_import_downward_only():
    assert not _wrong(FORBIDDEN, lambda name, forbidden: name.split(".")[0] in forbidden)


def test_parts_of_ftc_import_downward_only():
    assert not _wrong(
        ALLOWED_WITHIN, lambda name, allowed: name.startswith("ftc.") and name.split(".")[1] not in allowed
    )


def test_calibration_core_loads_without_lightning_and_hydra():
    code = (
        "import sys; from ftc import ClassPartition; import ftc.functional, ftc.metrics; "
        "import ftc.calibrators, ftc.evaluation; "
        "print([m for m in ('lightning', 'hydra', 'timm', 'wandb') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert out.stdout.strip() == "[]"
