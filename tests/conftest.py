"""Fixtures: a small world of images on disk-free arrays, and the command line as a user types it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import settings

from ftc import ClassPartition
from ftc.cli.launch import conf_dir
from ftc.config.check import check
from ftc.config.node import Node
from ftc.data import ArrayReader
from tests.commands import run_train

# How long an example takes is the machine's matter.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

N = TypeVar("N", bound=Node)
Command = Callable[..., subprocess.CompletedProcess]


def composed(kind: type[N], name: str, *overrides: str) -> N:
    """The configuration of ``python -m ftc.<name>`` in this process, checked."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return check(compose(name, overrides=list(overrides)), kind)


@pytest.fixture(autouse=True, scope="session")
def cache_of_their_own(tmp_path_factory) -> None:
    """Tests neither find nor leave anything in the user's cache folder."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """`run_train` in the test's own folder."""
    return partial(run_train, tmp_path)


@pytest.fixture
def partition() -> ClassPartition:
    """Three seen, two absent, one other column."""
    return ClassPartition(num_classes=6, seen=[0, 2, 4], absent=[1, 5])


@pytest.fixture
def reader() -> ArrayReader:
    """60 images of 8×8 in six classes, told apart by brightness."""
    generator = np.random.default_rng(0)
    targets = np.arange(60) % 6
    images = generator.integers(0, 30, (60, 8, 8)) + 35 * targets[:, None, None]
    return ArrayReader(images.astype(np.uint8), targets, tuple("abcdef"))


def random_logits(
    partition: ClassPartition, size: int = 200, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, C) that know a little about their labels (N,) of all groups."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, partition.num_classes, (size,), generator=generator)
    logits = torch.randn(size, partition.num_classes, generator=generator)
    logits[torch.arange(size), target] += 1.5
    logits[:, list(partition.seen)] += 1.0
    return logits, target
