"""What stands in for what the pages take for granted: a reader's images and weights, benchmarks, runs.

A page's names are kept: ``photos`` are photos, few and drawn. A thing is made when a command first names it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from timm.data import ImageNetInfo
from timm.models import save_for_hf

from ftc.models import create_clip_classifier
from tests import replicas
from tests.commands import run_module, run_train

CLASSES = ("circle", "cross", "square", "star")
OFFICE_HOME = tuple(f"Thing_{number:02d}" for number in range(65))
DTD = tuple(f"texture {number:02d}" for number in range(47))
WNIDS = tuple(ImageNetInfo("imagenet-1k").label_names())
# Two to train on and one to test on.
IMAGES_PER_CLASS = 3
# A small one of those that open_clip knows.
CLIP = "ViT-S-32-alt"

# The reader's own words, and what they mean where the page has made no run or sweep before.
PLACEHOLDERS = {
    "<run>": "run",
    "<sweep>": "sweep",
    "<this repository>": "repository",
    "<entity>": "you",
    "<id>": "id",
}
# What a page calls by a name, and the thing that it is given.
PLACES = {
    "photos": "photos",
    "more": "more_photos",
    "photo.jpg": "photo.jpg",
    "names.txt": "names.txt",
    "groups.txt": "groups.txt",
    "train.npz": "logits.npz",
    "test.npz": "logits.npz",
    "your_weights.safetensors": "weights.safetensors",
    "calibrated.safetensors": "calibrated.safetensors",
    "deployed": "deployed",
    "released.pth": "released.pth",
    "outputs/run": "run",
    "outputs/a": "run",
    "outputs/b": "run",
    "outputs/sweeps/sweep": "sweep",
    "outputs/sweeps/c": "sweep",
    "outputs/my-run": "office_home_run",
    "OfficeHomeDataset.zip": "OfficeHomeDataset.zip",
    "path/to/clone": "clone",
    "iwildcam_v2.0": "original/iwildcam",
}
# The shortest run that goes through every stage.
QUICK = {
    "source.max_epochs": "1",
    "source.iterations_per_epoch": "4",
    "trainer.max_epochs": "1",
    "data.iterations_per_epoch": "2",
    "data.num_workers": "0",
    "figures": "[]",
}


def filled(text: str, **names: str) -> str:
    """A block's text with its placeholders filled, where nothing else is given as `PLACEHOLDERS` says."""
    for placeholder, name in PLACEHOLDERS.items():
        text = text.replace(placeholder, names.get(placeholder.strip("<>"), name))
    return text


def clone(folder: Path, images_per_class: int = IMAGES_PER_CLASS) -> Path:
    """A clone of the paper's repository that orders as many classes as the real one."""
    labels = {wnid: label for label, wnid in enumerate(WNIDS)}
    return replicas.paper_clone(folder, OFFICE_HOME, labels, images_per_class)


def draw_photos(
    root: Path, classes: tuple[str, ...], count: int, folders: Mapping[str, str] | None = None
) -> None:
    """Pictures in class folders; every split has images of its own.

    Args:
        root: the split's folder.
        classes: the classes that it has, see `draw`.
        count: pictures of a class.
        folders: what the folders of classes are called, where it is not their name.
    """
    generator = torch.Generator().manual_seed(sum(map(ord, root.name)))
    for name in classes:
        for i in range(count):
            draw(root / (folders or {}).get(name, name) / f"{i}.png", name, generator)


def draw(path: Path, name: str, generator: torch.Generator) -> None:
    """A picture of one of `CLASSES`; any other is drawn as the last of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = torch.randint(4, 20, (2,), generator=generator).tolist()
    paper = torch.randint(230, 256, (3,), generator=generator).tolist()
    image = Image.new("RGB", (48, 40), tuple(paper))
    pen = ImageDraw.Draw(image)
    if name == "circle":
        pen.ellipse((x, y, x + 16, y + 16), fill="red")
    elif name == "cross":
        pen.line((x, y, x + 16, y + 16), fill="blue", width=5)
    elif name == "square":
        pen.rectangle((x, y, x + 16, y + 16), fill="green")
    else:
        pen.polygon([(x, y + 16), (x + 8, y), (x + 16, y + 16)], fill="orange")
    image.save(path)


class StandIns:
    """Things that are made once each, when they are first asked for.

    Args:
        home: the folder in which they are made.
    """

    def __init__(self, home: Path) -> None:
        self.home = home

    def __getitem__(self, name: str) -> Path:
        """The file or folder of a thing."""
        path = self.home / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._make(name, path)
        return path

    def give(self, name: str, to: Path) -> None:
        """Put a thing where a page has it, unless something is there."""
        thing = self[name]
        if os.path.lexists(to):
            return
        to.parent.mkdir(parents=True, exist_ok=True)
        if thing.is_dir():
            shutil.copytree(thing, to, copy_function=os.link)
        else:
            os.link(thing, to)

    def _make(self, name: str, path: Path) -> None:
        kind, _, which = name.partition("/")
        match kind:
            case "photos":
                _photos(path, CLASSES)
            case "photos_of_imagenet":
                _photos(path, WNIDS[::250])
            case "more_photos":
                _photos(path, ("box", "spark"))
            case "photos_of_new_classes":
                _photos(path, ("moon", "plus"))
            case "photo.jpg":
                draw(path, "circle", torch.Generator().manual_seed(0))
            case "names.txt":
                path.write_text("\n".join(CLASSES))
            case "groups.txt":
                path.write_text("".join(f"Art/{OFFICE_HOME[0]}/{i:05d}.jpg one\n" for i in (1, 2)))
            case "logits.npz":
                target = np.arange(200) % 4
                logits = np.random.default_rng(0).normal(size=(200, 4)) + 2 * np.eye(4)[target]
                np.savez(path, logits=logits, target=target)
            case "weights.safetensors":
                save_file(timm.create_model("test_resnet", num_classes=len(CLASSES)).state_dict(), path)
            case "model":
                save_model(path, CLASSES)
            case "model_of_imagenet":
                save_model(path, WNIDS)
            case "clip.pth":
                classifier = create_clip_classifier(CLIP, None, DTD, ["a photo of a {} texture."])
                torch.save(classifier.timm_state_dict(), path)
            case "clone":
                clone(path)
            case "original":
                self._original(which, path)
            case "OfficeHomeDataset.zip":
                shutil.make_archive(str(path.with_suffix("")), "zip", self["original/office_home"])
            case "prepared":
                original, task = self[f"original/{which}"], ("--task", "dtd") if which == "vtab" else ()
                self._run("prepare", which, "--from", str(original), "--to", str(path.parent), *task)
            case "run":
                self._run("train", f"run_dir={path}")
            case "sweep":
                self._run("train", "-m", "partition.seed=0,1", *quick(), f"hydra.sweep.dir={path}")
            case "office_home_run":
                data = f"data.root={self['prepared/office_home'].parent}"
                tiny = f"model.name=local-dir:{self['model_of_imagenet']}"
                self._run("train", "experiment=office_home", data, tiny, *quick(), f"run_dir={path}")
            case "released.pth":
                torch.save(load_file(self["office_home_run"] / "source.safetensors"), path)
            case "calibrated.safetensors":
                shutil.copy(self["run"] / "checkpoints" / path.name, path)
            case "deployed":
                self._run("deploy", f"run={self['run']}", f"to={path}")
            case _:
                raise KeyError(name)

    def _original(self, benchmark: str, path: Path) -> None:
        match benchmark:
            case "office_home":
                replicas.office_home_archive(path, OFFICE_HOME, IMAGES_PER_CLASS)
            case "imagenet_r":
                replicas.imagenet_r_archive(path, WNIDS, IMAGES_PER_CLASS)
            case "imagenet_sketch":
                replicas.imagenet_sketch_archive(path, WNIDS, IMAGES_PER_CLASS)
            case "vtab":
                replicas.vtab_hub(path, "dtd", DTD, IMAGES_PER_CLASS)
            case "emoji":
                replicas.emoji_packages(path)
            case "iwildcam":
                replicas.wilds_folder(path)

    def _run(self, module: str, *arguments: str) -> None:
        if module == "train":
            done = run_train(self.home, *arguments, "logger=csv", f"cache_dir={self.home}/cache")
        else:
            done = run_module(module, self.home, *arguments)
        assert done.returncode == 0, done.stderr


def quick(given: tuple[str, ...] = ()) -> list[str]:
    """The overrides that make a run short, but for keys that are given."""
    keys = {word.lstrip("+").partition("=")[0] for word in given}
    return [f"{key}={value}" for key, value in QUICK.items() if key not in keys]


def save_model(folder: Path, classes: tuple[str, ...]) -> None:
    """A small model as the hub keeps it, with the names of its classes."""
    torch.manual_seed(0)
    small = {"input_size": (3, 32, 32)}
    model = timm.create_model("test_resnet", num_classes=len(classes), pretrained_cfg_overlay=small)
    save_for_hf(model, str(folder), {"label_names": list(classes)}, safe_serialization=True)


def _photos(root: Path, folders: tuple[str, ...]) -> None:
    """Training images of two classes; all others are of as many classes as there are folders."""
    called = dict(zip(CLASSES, folders, strict=False))
    draw_photos(root / "train", CLASSES[:2], 12, called)
    for split in ("val", "test", "pool"):
        draw_photos(root / split, tuple(called), 8, called)
