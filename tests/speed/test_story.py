"""Whole commands against a bare loop over the same steps; ``make bench ARGS="-k story"`` prints both.

The bare loop trains the same model with the same optimiser on random tensors that lie ready: it neither reads
nor augments images, and evaluates nothing. Both are whole processes, imports included, and take turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from rich.console import Console
from rich.table import Table

from ftc.models import save_weights
from tests.commands import run_fresh
from tests.speed.test_input import photograph

pytestmark = pytest.mark.slow

TURNS = 3

# Arguments: model, classes, channels, pixels, batch, and the steps of each training.
BARE = """
import sys
import timm, torch
name, (classes, channels, size, batch, *trainings) = sys.argv[1], map(int, sys.argv[2:])
model = timm.create_model(name, num_classes=classes, in_chans=channels)
image, target = torch.randn(batch, channels, size, size), torch.randint(0, classes, (batch,))
for steps in trainings:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(image), target).backward()
        optimizer.step()
"""


def seconds(command: Callable[[], subprocess.CompletedProcess]) -> float:
    start = time.perf_counter()
    result = command()
    assert result.returncode == 0, result.stderr
    return time.perf_counter() - start


def in_turns(title: str, folder: Path, ours: tuple[str, ...], bare: tuple[object, ...]) -> float:
    """The ratio of the fastest of several turns; every run of ours trains its source model anew."""
    line = [sys.executable, "-c", BARE, *map(str, bare)]
    # Tests have one thread a process; users have all.
    threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
    times = []
    for turn in range(TURNS):
        own = (*ours, f"output_dir=turn{turn}", f"run_dir=turn{turn}/run")
        times.append(
            (
                seconds(lambda own=own: run_fresh("train", folder, *own, **threads)),
                seconds(
                    lambda: subprocess.run(line, env=os.environ | threads, text=True, capture_output=True)
                ),
            )
        )
    whole, loop = map(min, zip(*times, strict=True))
    stages = json.loads((folder / f"turn{TURNS - 1}" / "run" / "results.json").read_text())["timing"]
    table = Table(title=f"{title}, {os.cpu_count()} threads, torch {torch.__version__}")
    for column in (
        "whole command (s)",
        "bare loop (s)",
        "ratio",
        "stages of the last turn (s)",
    ):
        table.add_column(column)
    every = " ".join(f"{a:.1f}/{b:.1f}" for a, b in times)
    timing = ", ".join(f"{name.replace('_', ' ')} {value:.1f}" for name, value in stages.items())
    table.add_row(f"{whole:.1f}", f"{loop:.1f}", f"{whole / loop:.2f}×", f"{timing}\nturns: {every}")
    Console(width=140).print(table)
    return whole / loop


def test_the_digits_story(tmp_path):
    # 15 epochs of 26 steps over nine tenths of UCI digits, 10 of 24 over seen MNIST digits.
    bare = ("test_resnet", 10, 1, 32, 64, 15 * 26, 10 * 24)
    # Other work on the machine may take a part of the goal.
    assert in_turns("python -m ftc.train (goal: 1.6×)", tmp_path, (), bare) < 2.2


def test_a_story_of_own_photographs(tmp_path):
    generator = np.random.default_rng(0)
    names = [f"class{i}" for i in range(8)]
    for split, classes, count in (("train", names[:4], 48), ("test", names, 12)):
        for name in classes:
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                photograph(generator).save(tmp_path / "photos" / split / name / f"{i}.jpg", quality=90)
    (tmp_path / "names.txt").write_text("\n".join(names))
    model = timm.create_model("resnet18", num_classes=8)
    save_weights(tmp_path / "source.safetensors", model.state_dict())
    ours = (
        *("experiment=folder", "data.root=photos", "data.columns=names.txt", "data.batch_size=16"),
        *("model.name=resnet18", "model.pretrained=false", "source.checkpoint=source.safetensors"),
        *("partition.absent=evaluated", "trainer.max_epochs=4"),
    )
    # A tenth of the training images is held out: 172 are left, in 11 steps an epoch.
    bare = ("resnet18", 8, 3, 224, 16, 4 * 11)
    title = "experiment=folder, 192 + 96 photographs at 224 pixels, ResNet-18"
    assert in_turns(title, tmp_path, ours, bare) < 3
