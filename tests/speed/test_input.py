"""Images a second from disk to batch, against torchvision's image folder; ``make bench`` prints the table.

The images stand in for Office-Home: photographs of 300 to 700 pixels a side, some 85 KB each. The variable
FTC_BENCH_IMAGES sets their number; 4,365 is the number of its Clipart images.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

pytestmark = pytest.mark.slow

IMAGES = int(os.environ.get("FTC_BENCH_IMAGES", "600"))
WORKERS = 2

# Every variant runs in a process of its own and prints, an epoch a line: images a second, and the peak memory
# of this process and of its largest worker so far, in MiB.
SETUP = """
import json, resource, sys, time
from pathlib import Path
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from ftc import ClassPartition, PartitionedDataModule
from ftc.data import ClassFolders, ImageCache, Loading, Preprocessing

root, folder, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
torch.set_num_threads(1)

def own(cache):
    config = {"input_size": (3, 224, 224), "mean": mean, "std": std, "interpolation": "bilinear",
              "crop_pct": 1.0, "crop_mode": "squash"}
    augmentation = [v2.RandomResizedCrop(224, scale=(0.7, 1.0)), v2.RandomHorizontalFlip(),
                    v2.ColorJitter(0.3, 0.3, 0.3, 0.3), v2.RandomGrayscale(0.1)]
    reader = ClassFolders(root)
    partition = ClassPartition(len(reader.class_names), range(len(reader.class_names)))
    loading = Loading(batch_size=64, eval_batch_size=64, num_workers=workers, cache=cache)
    return PartitionedDataModule(reader, partition, Preprocessing(config, augmentation), loading=loading)

def epochs(make, count):
    start = time.perf_counter()
    loader = make()
    for epoch in range(count):
        images = sum(len(batch[0] if isinstance(batch, list) else batch["image"]) for batch in loader)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        peak = [resource.getrusage(who).ru_maxrss / 1024
                for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        print(json.dumps([images / seconds, *peak]))
"""
BASELINE = """
transform = transforms.Compose([
    transforms.RandomResizedCrop(224, scale=(0.7, 1.0)), transforms.RandomHorizontalFlip(),
    transforms.ColorJitter(0.3, 0.3, 0.3, 0.3), transforms.RandomGrayscale(0.1),
    transforms.ToTensor(), transforms.Normalize(mean, std)])
epochs(lambda: DataLoader(ImageFolder(root, transform), 64, shuffle=True, num_workers=workers,
                          persistent_workers=True), 2)
"""
UNCACHED = "epochs(own(None).train_dataloader, 2)"
CACHED = "epochs(own(ImageCache(folder)).train_dataloader, 4)"
EVALUATION = "epochs(own(ImageCache(folder)).calibration_dataloader, 3)"


def photograph(generator: np.random.Generator) -> Image.Image:
    """Soft shapes, some texture and sensor noise."""
    width, height = generator.integers(300, 701, 2)

    def noise(cell: int) -> np.ndarray:
        coarse = generator.integers(0, 256, (height // cell + 2, width // cell + 2, 3), dtype=np.uint8)
        scaled = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(scaled).astype(np.float32) - 128

    pixels = 128 + 0.8 * noise(40) + 0.15 * noise(4) + generator.normal(0, 5, (height, width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    for i in range(IMAGES):
        path = root / f"{i % 65:02d}" / f"{i:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        photograph(generator).save(path, quality=90)
    return root


@pytest.fixture(scope="module")
def run(photographs, tmp_path_factory) -> Callable[[str], list[tuple[float, float, float]]]:
    cache = tmp_path_factory.mktemp("cache")

    def run(variant: str) -> list[tuple[float, float, float]]:
        line = [sys.executable, "-c", SETUP + variant, str(photographs), str(cache), str(WORKERS)]
        out = subprocess.run(line, text=True, stdout=subprocess.PIPE, check=True)
        return [tuple(json.loads(epoch)) for epoch in out.stdout.splitlines()]

    return run


def test_images_a_second(run, photographs):
    results = {
        "torchvision's ImageFolder": run(BASELINE),
        "without cache": run(UNCACHED),
        "with cache": run(CACHED),
        "evaluation with cache": run(EVALUATION),
    }
    baseline = max(epoch[0] for epoch in results["torchvision's ImageFolder"])
    size = np.mean([path.stat().st_size for path in photographs.rglob("*.jpg")])
    table = Table(
        title=f"{IMAGES:,} images of {size / 1e3:.0f} KB, {WORKERS} workers, {os.cpu_count()} cores, "
        f"torch {torch.__version__}"
    )
    for column in ("training epochs", "first, images/s", "best later", "ratio", "peak memory, MiB"):
        table.add_column(column)
    for name, epochs in results.items():
        first, later = epochs[0][0], max(epoch[0] for epoch in epochs[1:])
        memory = f"{epochs[0][1]:.0f}, then {epochs[-1][1]:.0f}; worker {epochs[-1][2]:.0f}"
        table.add_row(name, f"{first:,.0f}", f"{later:,.0f}", f"{later / baseline:.1f}×", memory)
    Console(width=120).print(table)
    cached = results["with cache"]
    # The goal is four times; other work on the machine may take a part of it.
    assert max(epoch[0] for epoch in cached[1:]) > 3 * baseline
    # Epochs add nothing: the data set never comes to lie in memory.
    assert cached[-1][1] - cached[1][1] < 100
