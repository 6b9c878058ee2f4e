"""The base and every extra are installed in clean environments, and do their work there.

The base is installed once. Each extra gets an environment of its own that also sees the packages of the base:
otherwise torch alone would be unpacked half a dozen times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image

import ftc
from ftc.models import save_weights
from tests.docs.blocks import the_block

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
QUICK = ("logger=csv", "source.max_epochs=1", "trainer.max_epochs=1")


class Environment:
    """A virtual environment with ftc and some extras, and a folder to work in."""

    def __init__(self, folder: Path, wheel: Path, extra: str = "", below: Environment | None = None) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        self.bin, self.home = folder / "bin", folder / "home"
        self.home.mkdir()
        (self.site,) = folder.glob("lib/python*/site-packages")
        if below is not None:
            (self.site / "below.pth").write_text(str(below.site))
        wanted = f"ftc[{extra}] @ {wheel.as_uri()}" if extra else str(wheel)
        line = [self.bin / "python", "-m", "pip", "install", "--quiet", wanted]
        installed = subprocess.run(line, text=True, capture_output=True)
        assert installed.returncode == 0, installed.stderr

    def run(self, *line: str) -> subprocess.CompletedProcess:
        """Run Python with arguments, in a home that has nothing."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        line = (str(self.bin / "python"), *line)
        return subprocess.run(line, cwd=self.home, env=env, text=True, capture_output=True)

    def result(self, *line: str) -> str:
        result = self.run(*line)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refusal(self, *line: str) -> str:
        result = self.run(*line)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
        return result.stderr

    def size(self) -> str:
        """What was installed besides ftc and what every environment has."""
        own = ("ftc", "pip", "setuptools", "_distutils_hack", "pkg_resources")
        tops = [path for path in self.site.iterdir() if not path.name.startswith(own)]
        files = [file for top in tops for file in (top, *top.rglob("*")) if file.is_file()]
        used = sum(file.stat().st_size for file in files)
        return f"{sum(top.suffix == '.dist-info' for top in tops)} packages, {used / 1e6:,.0f} MB"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    line = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def base(wheel, tmp_path_factory, request) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("base"), wheel)
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\nbase: {environment.size()}")
    return environment


@pytest.fixture
def extra(base, wheel, tmp_path, request, capsys) -> Environment:
    environment = Environment(tmp_path / "environment", wheel, request.param, base)
    with capsys.disabled():
        print(f"\n{request.param}: {environment.size()} more")
    return environment


def test_the_base_works_on_saved_logits_and_own_images(base):
    assert base.result("-m", "ftc.train", "--version") == f"ftc {ftc.__version__}\n"
    script = the_block("python", "# save_logits.py").text
    base.result("-c", script)
    base.result("-m", "ftc.calibrate", "train=train.npz", "eval=test.npz", "partition.seen=[0,1]")

    generator = np.random.default_rng(0)
    for split, classes in (("train", "ab"), ("test", "abcd")):
        for i in range(24):
            name = classes[i % len(classes)]
            path = base.home / "photos" / split / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    (base.home / "names.txt").write_text("a\nb\nc\nd\n")
    model = timm.create_model("test_resnet", num_classes=4)
    save_weights(base.home / "source.safetensors", model.state_dict())
    own = ("experiment=folder", "data.root=photos", "data.columns=names.txt", "partition.absent=evaluated")
    model = ("model.name=test_resnet", "model.pretrained=false", "source.checkpoint=source.safetensors")
    base.result("-m", "ftc.train", *own, *model, "trainer.max_epochs=1", "run_dir=run")
    assert json.loads((base.home / "run" / "results.json").read_text())["num_samples"]["absent"] == 12


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ("digits", ("-m", "ftc.train")),
        ("emoji", ("-m", "ftc.prepare", "emoji", "--from", ".")),
        ("semantic", ("-m", "ftc.train", "partition=near")),
        ("sweeps", ("-m", "ftc.train", "sweep=optuna")),
        ("sweeps", ("-m", "ftc.train", "-m", "seed=0,1", "hydra/launcher=joblib")),
    ],
)
def test_the_base_names_the_extra_that_is_missing(base, extra, line):
    refusal = base.refusal(*line)
    assert refusal.startswith("ftc: error: ")
    assert f"which is not installed; pip install 'ftc[{extra}]'" in refusal
    assert not list((base.home / "outputs").glob("digits-*"))


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ("hub", "from ftc.data import HubDataset; HubDataset('x', 'train')"),
        ("clip", "from ftc.models.clip import create_clip_classifier as c; c('RN50', None, ['a'], ['{}'])"),
        ("export", "from ftc.export.formats import FORMATS; FORMATS['onnx'].check_installed()"),
    ],
)
def test_what_misses_an_extra_says_so_in_python_too(base, extra, code):
    assert f"which is not installed; pip install 'ftc[{extra}]'" in base.run("-c", code).stderr


SEMANTIC = """
import torch
from ftc.partition.semantic import semantic_partition
print(semantic_partition("near", torch.eye(6), range(6), 6, 3, None, 0).seen)
"""
CLIP = """
import json, pathlib, open_clip
from ftc.models.clip import create_clip_classifier
vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16}
text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
path = pathlib.Path("tiny.json")
path.write_text(json.dumps({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
open_clip.add_model_config(path)
print(create_clip_classifier("tiny", None, ["cat", "dog"], ["a {}."]).head.out_features)
"""
EXPORT = """
import pathlib, numpy
from ftc import ClassPartition
from ftc.export import Predictor
from ftc.export.facts import Facts
from ftc.export.formats import FORMATS, Deployment
from ftc.models import create_classifier
model = create_classifier("test_resnet", 2).eval()
partition = ClassPartition(2, [0, 1]).record()
told = dict(class_names=("cat", "dog"), calibrator="alg", gamma=0, preprocessing=model.data_config)
FORMATS["onnx"].write(Deployment(model, Facts(partition=partition, **told)), pathlib.Path())
print(Predictor("model.onnx")([numpy.zeros((9, 9, 3), numpy.uint8)])[0].group)
"""
EMOJI = """
import pathlib
from ftc.benchmarks.emoji import write_weights
write_weights(pathlib.Path("weights.safetensors"))
print("written")
"""
HUB = """
import datasets
from ftc.data import HubDataset
table = {"image": [b"x"] * 3, "label": ["cat", "dog", "cat"]}
datasets.Dataset.from_dict(table).to_parquet("table/train.parquet")
print(HubDataset("table", "train").class_names)
"""
TRACKERS = """
from ftc.assembly.loggers import mlflow_logger, tensorboard_logger
for logger in (tensorboard_logger("run"), mlflow_logger("run", "store")):
    logger.log_metrics({"val/acc_all": 0.5}, 1)
print(type(logger).__name__)
"""


@pytest.mark.parametrize(
    ("extra", "line", "printed"),
    [
        ("digits", ("-m", "ftc.train", *QUICK), "Run folder: outputs/digits-"),
        ("emoji", ("-c", EMOJI), "written"),
        ("semantic", ("-c", SEMANTIC), "("),
        ("hub", ("-c", HUB), "('cat', 'dog')"),
        ("clip", ("-c", CLIP), "2"),
        ("export", ("-c", EXPORT), "seen"),
        ("sweeps", ("-m", "ftc.calibrate", "-m", "hydra/launcher=joblib"), "finished"),
        ("sweeps", ("-c", "import optuna, hydra_plugins.hydra_submitit_launcher; print('there')"), "there"),
        ("trackers", ("-c", TRACKERS), "_MLflow"),
        ("ray", ("-m", "ftc.calibrate", "-m", "hydra/launcher=ray"), "finished"),
    ],
    indirect=["extra"],
)
def test_every_extra_does_its_work(extra, line, printed):
    if "ftc.calibrate" in line:
        script = the_block("python", "# save_logits.py").text
        extra.result("-c", script)
        files = ("train=train.npz", "eval=test.npz")
        line = (*line, *files, "partition.seen=[0,1],[0,2]")
    assert printed in extra.result(*line)
