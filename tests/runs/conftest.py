"""A small finished run on images as people have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from ftc.models import save_weights
from tests.commands import run_train

CLASSES = ("ant", "bée", "cat", "dog", "elk", "fox")
SEEN, EVALUATED = CLASSES[:2], CLASSES[:4]

# The head has columns of two further classes; images are cropped, and not square.
OWN = (
    *("experiment=folder", "data.root=photos", "data.columns=names.txt", "partition.absent=evaluated"),
    *("model.name=test_resnet", "model.pretrained=false", "source.checkpoint=source.safetensors"),
    *("model.input_size=[3,40,32]", "trainer.max_epochs=1", "logger=null", "run_dir=run"),
)


def lay_out(home: Path) -> None:
    """Photographs of every kind: transparent, turned, grey, of any proportions; names and weights."""
    generator = np.random.default_rng(0)
    for split, classes in (("train", SEEN), ("test", EVALUATED)):
        for i in range(24):
            folder = home / "photos" / split / classes[i % len(classes)]
            folder.mkdir(parents=True, exist_ok=True)
            colour = np.array([60 * (i % len(classes)), 90, 200 - 50 * (i % len(classes))])
            noise = generator.integers(0, 50, (37 + i, 64 - i, 3))
            image = Image.fromarray((noise + colour).clip(0, 255).astype(np.uint8))
            kind = i % 5
            if kind == 0:
                image.putalpha(Image.linear_gradient("L").resize(image.size))
                image.save(folder / f"{i}.png")
            elif kind == 1:
                exif = Image.Exif()
                exif[0x0112] = 6
                image.save(folder / f"{i}.jpg", exif=exif)
            elif kind == 2:
                image.convert("L").save(folder / f"{i}.png")
            elif kind == 3:
                image.quantize(16).save(folder / f"{i}.gif")
            else:
                image.save(folder / f"{i}.webp", lossless=True)
    (home / "names.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=len(CLASSES))
    save_weights(home / "source.safetensors", model.state_dict())


@pytest.fixture(scope="session")
def own_run(tmp_path_factory) -> Path:
    """The folder that has `OWN`'s run, its images and its files."""
    home = tmp_path_factory.mktemp("own_run")
    lay_out(home)
    done = run_train(home, *OWN)
    assert done.returncode == 0, done.stderr
    return home
