"""Predictions against bare loops in the same run; ``make bench ARGS="-k predict"`` prints both.

The bare loops are what their users would write: timm's model and transform behind a DataLoader with a worker
a core, and an onnxruntime session fed with images that Pillow resizes one after the other in threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from ftc import ClassPartition
from ftc.export import Predictor
from ftc.export.facts import Facts
from ftc.export.formats import FORMATS, Deployment
from ftc.models import create_classifier
from tests.speed.test_input import photograph

pytestmark = pytest.mark.slow

CORES = os.cpu_count() or 1
TURNS, BATCH = 5, 32
# Model, pixels, images: one whose time goes into decoding, and one whose time goes into the model.
CASES = (("test_resnet", 64, 600), ("resnet18", 224, 200))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    originals = [photograph(generator) for _ in range(12)]
    paths = []
    for i in range(max(count for _, _, count in CASES)):
        paths.append(folder / f"{i:04d}.jpg")
        originals[i % len(originals)].save(paths[-1], quality=90)
    return paths


class Files(Dataset):
    def __init__(self, paths: list[Path], transform: Callable) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def bare_timm(folder: Path) -> Callable[[list[Path]], np.ndarray]:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))

    def run(paths: list[Path]) -> np.ndarray:
        loader = DataLoader(Files(paths, transform), batch_size=BATCH, num_workers=CORES)
        with torch.inference_mode():
            return np.concatenate([model(images).argmax(1).numpy() for images in loader])

    return run


def bare_onnxruntime(folder: Path, size: int) -> Callable[[list[Path]], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))

    def pixels(path: Path) -> np.ndarray:
        return np.asarray(Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BICUBIC))

    def batches(paths: list[Path]) -> Iterable[np.ndarray]:
        with ThreadPoolExecutor(CORES) as pool:
            ready = pool.map(pixels, paths)
            for start in range(0, len(paths), BATCH):
                yield np.stack([next(ready) for _ in paths[start : start + BATCH]])

    def run(paths: list[Path]) -> np.ndarray:
        found = [session.run(["logits"], {"images": batch})[0] for batch in batches(paths)]
        return np.concatenate(found).argmax(1)

    return run


def ours(model: Path) -> Callable[[list[Path]], np.ndarray]:
    predictor = Predictor(model, device="cpu", batch_size=BATCH, num_workers=CORES)
    column = {name: i for i, name in enumerate(predictor.facts.class_names)}
    return lambda paths: np.array([column[p.labels[0]] for p in predictor.stream(paths, top_k=1)])


@pytest.mark.parametrize(("name", "size", "count"), CASES)
def test_images_a_second(photographs, tmp_path, name, size, count):
    torch.set_num_threads(CORES)
    overlay = {
        "input_size": (3, size, size),
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "interpolation": "bicubic",
    }
    classifier = create_classifier(name, 10, kwargs={"pretrained_cfg_overlay": overlay}).eval()
    facts = Facts(
        class_names=tuple("abcdefghij"),
        partition=ClassPartition(10, range(5), range(5, 10)).record(),
        calibrator="alg",
        gamma=0.0,
        preprocessing=classifier.data_config,
    )
    for kind in ("timm", "onnx"):
        FORMATS[kind].write(Deployment(classifier, facts), tmp_path)
    paths = photographs[:count]
    pairs = {
        "timm": (ours(tmp_path), bare_timm(tmp_path)),
        "onnxruntime": (ours(tmp_path / "model.onnx"), bare_onnxruntime(tmp_path, size)),
    }
    table = Table(title=f"Images a second: {name}, {size} pixels, {count} photographs")
    for heading in ("", "ours", "bare", "ratio"):
        table.add_column(heading, justify="right")
    ratios = {}
    for engine, pair in pairs.items():
        labels, times = [], ([], [])
        for _ in range(TURNS):
            for run, taken in zip(pair, times, strict=True):
                start = time.perf_counter()
                labels.append(run(paths))
                taken.append(time.perf_counter() - start)
        assert all(np.array_equal(labels[0], other) for other in labels)
        best = [count / min(taken) for taken in times]
        ratios[engine] = best[0] / best[1]
        table.add_row(engine, *(f"{value:.0f}" for value in best), f"{ratios[engine]:.2f}")
    Console().print(table)
    assert min(ratios.values()) >= 0.9
