"""The proof that an artefact is the model that was measured: without ftc, it is run on the test images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from ftc.errors import InputError
from ftc.functional import accuracies, curve_of_outcomes, reduce_logits
from ftc.functional.accuracy import Average
from ftc.partition import ClassPartition

# How near two logits must be (in logits) that rounding may exchange them.
TIE = 1e-4

# The metrics that are compared, see docs/definitions.md, "Metrics".
ROW = ("acc_all", "acc_seen", "acc_absent", "acc_seen_within", "acc_absent_within", "harmonic", "ausuc")

# Runs a recipe in a process of its own. A single image comes first: no size of a batch may be built in.
_RUNNER = """
import json, sys

sys.modules["ftc"] = None  # to import it is an error
with open(sys.argv[1], encoding="utf-8") as file:
    exec(compile(file.read(), sys.argv[1], "exec"))
with open(sys.argv[2], encoding="utf-8") as file:
    paths = json.load(file)
import numpy
starts = [0, *range(1, len(paths), 32), len(paths)]
found = [logits(paths[a:b]) for a, b in zip(starts, starts[1:]) if b > a]
numpy.savez(sys.argv[3], logits=numpy.concatenate(found), class_names=numpy.array(class_names, dtype=str))
"""


@frozen(eq=False)
class Agreement:
    """How an artefact and the model that it was made from agree on the same images.

    Attributes:
        row: metrics of the artefact, fractions by name, see `ROW`; ``nan`` where they do not apply.
        difference: the largest difference of two logits.
        agreement: share of the samples with the same argmax.
        disagreeing: samples with another argmax that rounding does not explain, int64.
        ties: how many samples have two leading logits that are nearer than `TIE`.
    """

    row: dict[str, float]
    difference: float
    agreement: float
    disagreeing: Tensor
    ties: int


def row_of(logits: Tensor, target: Tensor, partition: ClassPartition, average: Average) -> dict[str, float]:
    """The row of the table for calibrated logits (N, C) and labels (N,)."""
    outcomes = reduce_logits(logits, target, partition)
    found = {
        **accuracies(outcomes, partition, 0.0, average),
        "ausuc": curve_of_outcomes(outcomes, partition, average).ausuc,
    }
    return {name: found[name] for name in ROW}


def near_ties(logits: Tensor) -> Tensor:
    """Samples whose two leading logits are no further apart than `TIE`, bool (N,)."""
    leading = logits.double().topk(min(2, logits.shape[1]), dim=1).values
    return leading[:, 0] - leading[:, -1] <= TIE


def compare(
    expected: Tensor, found: Tensor, target: Tensor, partition: ClassPartition, average: Average
) -> Agreement:
    """Compare an artefact's logits with its model's, both (N, C) float32 and calibrated.

    Raises:
        InputError: logits of another shape, or that are not finite.
    """
    if found.shape != expected.shape:
        raise InputError(f"it gives logits {tuple(found.shape)}, the model {tuple(expected.shape)}")
    near = near_ties(expected)
    other = expected.argmax(1) != found.argmax(1)
    return Agreement(
        row=row_of(found, target, partition, average),
        difference=float((expected.double() - found.double()).abs().max()),
        agreement=float((~other).double().mean()),
        disagreeing=(other & ~near).nonzero()[:, 0],
        ties=int(near.sum()),
    )


def logits_of_recipe(
    recipe: str, paths: Sequence[Path], class_names: Sequence[str], workplace: Path
) -> Tensor:
    """Run a recipe on image files, in a fresh process that cannot import ftc: logits (N, C), float32.

    Args:
        recipe: source that defines ``class_names`` and ``logits(paths)``, see `ftc.export.formats`.
        paths: the image files.
        class_names: what the artefact must name its columns.
        workplace: folder for what the two processes hand each other.

    Raises:
        InputError: the process fails, or the artefact names its columns differently.
    """
    source, images, result = (workplace / name for name in ("recipe.py", "images.json", "logits.npz"))
    runner = workplace / "runner.py"
    runner.write_text(_RUNNER, encoding="utf-8")
    source.write_text(recipe, encoding="utf-8")
    images.write_text(json.dumps([str(path) for path in paths]), encoding="utf-8")
    result.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, str(runner), str(source), str(images), str(result)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "ignore"},
    )
    if done.returncode or not result.is_file():
        reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise InputError(f"it cannot be run without ftc: {reason}")
    with np.load(result) as found:
        logits, names = torch.from_numpy(found["logits"]), found["class_names"].tolist()
    if names != list(class_names):
        raise InputError(f"it calls its columns {', '.join(names[:5])}, …, the model {class_names[:5]}, …")
    return logits.float()
