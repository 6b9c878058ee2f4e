"""What README and docs show works as it stands there."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import timm
import torch
from lightning.pytorch import LightningModule
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch.utils.data import DataLoader, TensorDataset

from ftc.config.commands import TrainConfig
from tests.commands import run_module, run_train
from tests.conftest import composed, readme_blocks

CALLBACK, LOGITS, OWN, DATA = (
    f"docs/{name}.md" for name in ("callback", "saved_logits", "own_images", "data")
)
CLASSES = ("circle", "cross", "square", "star")


def test_functions_example():
    (block,) = (block for block in readme_blocks("python", CALLBACK) if "seen_absent_curve(" in block)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(block, {})
    assert "acc_absent" in out.getvalue()


class TwoLayers(LightningModule):
    """Knows nothing of ftc."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Linear(5, 4)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return {"logits": self.layers(batch[0]), "target": batch[1]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_callback_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in readme_blocks("python", CALLBACK) if "CalibrationCallback(" in block)
    features = torch.randn(80, 5, generator=torch.Generator().manual_seed(0))
    seen = DataLoader(TensorDataset(features[:40], torch.arange(40) % 2), 8)
    val = DataLoader(TensorDataset(features[40:], torch.arange(40) % 4), 8)
    names = {"module": TwoLayers(), "train_loader": seen, "loaders": [seen, val]}
    exec(block, names)
    assert [row["epoch"] for row in names["callback"].history] == [-1, 0, 1, 2]


def test_saved_logits_example(tmp_path):
    (script,) = (block for block in readme_blocks("python", LOGITS) if "# save_logits.py" in block)
    (tmp_path / "save_logits.py").write_text(script)
    subprocess.run([sys.executable, "save_logits.py"], cwd=tmp_path, check=True)
    (command,) = (
        line for b in readme_blocks("bash", LOGITS) for line in b.splitlines() if "ftc.calibrate" in line
    )
    result = run_module("calibrate", tmp_path, *command.split()[3:])
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("outputs/logits-*/results.json")
    stages = json.loads(path.read_text())["stages"]
    assert stages["calibrated"]["alg"]["acc_absent"] > stages["fine_tuned"]["acc_absent"] + 0.3
    assert "│ + ALG " in result.stdout


def draw_photos(root: Path, classes: tuple[str, ...], count: int) -> None:
    # Every split has images of its own.
    generator = torch.Generator().manual_seed(sum(map(ord, root.name)))
    for name in classes:
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(count):
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
            image.save(folder / f"{i}.png")


def test_own_data_example(tmp_path):
    blocks = readme_blocks("python", DATA) + readme_blocks("yaml", DATA)
    files = {found[1]: b for b in blocks if (found := re.search(r"^# (my_\S+)$", b, flags=re.MULTILINE))}
    assert len(files) == 3
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    for name, block in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    (command,) = (
        line for b in readme_blocks("bash", DATA) for line in b.splitlines() if "--config-dir" in line
    )
    for split, classes in (("train", CLASSES[:2]), ("val", CLASSES), ("test", CLASSES)):
        draw_photos(tmp_path / "photos" / split, classes, 8)
    # Stands in for the hub: the same loading path, from a local file.
    save_file(
        timm.create_model("test_resnet", num_classes=4).state_dict(), tmp_path / "pretrained.safetensors"
    )
    overlay = f"{{file: {tmp_path}/pretrained.safetensors, num_classes: 4, input_size: [3, 64, 64]}}"
    local = ("model.name=test_resnet", f"+model.kwargs.pretrained_cfg_overlay={overlay}", "logger=csv")
    result = run_train(tmp_path, *command.split()[3:], *local, "trainer.max_epochs=2", "data.num_workers=0")
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("outputs/photos-*/results.json")
    results = json.loads(path.read_text())
    assert results["partition"]["seen"] == [0, 1]
    assert results["num_samples"] == {"seen": 16, "absent": 16, "others": 0}
    assert results["stages"]["source"]["uses"] == ["pre-training"]
    assert "ncm_acc_all" not in results["stages"]["source"]


def test_a_folder_and_a_hub_model_without_images_of_absent_classes(tmp_path):
    command = next(
        line for b in readme_blocks("bash", OWN) for line in b.splitlines() if "experiment=folder " in line
    )
    for split in ("train", "test"):
        draw_photos(tmp_path / "photos" / split, CLASSES[:2], 8)
    # As the hub keeps a model; names by column, in no order.
    model = timm.create_model("test_resnet", num_classes=4)
    names = {str(c): CLASSES[c] for c in (2, 0, 3, 1)}
    save_for_hf(model, str(tmp_path / "hub"), {"label_names": names}, safe_serialization=True)
    local = ("model.name=local-dir:hub", "logger=csv", "trainer.max_epochs=1", "run_dir=seen_only")
    result = run_train(tmp_path, *command.split()[3:], *local)
    assert result.returncode == 0, result.stderr
    # Nothing that timm or the hub's client report on the way.
    assert result.stderr == ""
    assert "[HYDRA]" not in result.stdout
    manifest = json.loads((tmp_path / "seen_only" / "partition.json").read_text())
    assert manifest["class_names"] == list(CLASSES)
    assert (manifest["seen"], manifest["absent"]) == (["circle", "cross"], ["square", "star"])
    results = json.loads((tmp_path / "seen_only" / "results.json").read_text())
    assert "oracle" not in results["stages"]["calibrated"]
    assert results["stages"]["fine_tuned"]["acc_absent"] is None
    assert results["stages"]["fine_tuned"]["curve"]["acc_absent"][0] is None
    assert isinstance(results["stages"]["calibrated"]["alg"]["gamma"], float)


def test_a_folder_with_unlabelled_images(tmp_path):
    draw_photos(tmp_path / "photos" / "train", CLASSES[:2], 12)
    draw_photos(tmp_path / "photos" / "test", CLASSES, 6)
    draw_photos(tmp_path / "photos" / "pool", CLASSES, 8)
    model = timm.create_model("test_resnet", num_classes=4)
    save_for_hf(model, str(tmp_path / "hub"), {"label_names": list(CLASSES)}, safe_serialization=True)
    local = ("model.name=local-dir:hub", "data.columns=model", "data.holdout=0.4", "trainer.max_epochs=1")
    folder = ("experiment=folder_pool", "data.root=photos", *local, "logger=csv", "run_dir=run")
    result = run_train(tmp_path, *folder)
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["deployed"] == "interpolated_prototypes"
    assert results["stages"]["calibrated"]["interpolated_prototypes"]["uses"][0] == "unlabelled pool"
    (tmp_path / "photos" / "pool").rename(tmp_path / "elsewhere")
    refused = run_train(tmp_path, *folder[:-1], "run_dir=other")
    assert refused.returncode == 2
    assert "photos/pool: no image in this folder" in refused.stderr


def test_the_papers_recipe_is_one_word_away():
    for experiment in ("folder", "folder_pool"):
        arguments = (
            f"experiment={experiment}",
            "data.root=photos",
            "model.name=resnet50",
            "recipe=paper",
        )
        assert composed(TrainConfig, "train", *arguments).calibration.use == ["alg"]


def test_every_picture_of_the_pages_is_there():
    root = Path(__file__).parents[1]
    for page in (root / "README.md", *(root / "docs").glob("*.md")):
        for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
            assert (page.parent / picture).is_file(), f"{page.name}: {picture}"
