"""A run says what its data are too few for, before it trains."""

from __future__ import annotations

import timm

from ftc.assembly.components import build_calibrators
from ftc.config.commands import TrainConfig
from ftc.models import save_weights
from ftc.reporting.tables import console
from ftc.runs.folder import RunFolder
from ftc.runs.parts import build_parts, build_source_stage, choose_classes
from ftc.runs.stages import Stages
from tests.conftest import composed
from tests.docs.stand_ins import draw_photos

CLASSES = ("circle", "cross", "square", "triangle")


def said(folder, capsys, *overrides: str) -> str:
    """What a run of photographs with a pool prints before its first stage."""
    data = (f"data.root={folder}", f"data.columns={folder}/names.txt", f"cache_dir={folder}/cache")
    weights = folder / "weights.safetensors"
    save_weights(weights, timm.create_model("test_resnet", num_classes=len(CLASSES)).state_dict())
    model = ("model.name=test_resnet", f"model.weights={weights}", "data.num_workers=0")
    config = composed(TrainConfig, "train", "experiment=folder_pool", *data, *model, *overrides)
    source, calibrators = build_source_stage(config, console()), build_calibrators(config)
    partition, _ = choose_classes(source, Stages(RunFolder(folder / "run"), console()))
    build_parts(source, partition, calibrators)
    return " ".join(capsys.readouterr().out.split())


def test_an_epoch_of_one_step_and_a_pool_of_two_images_a_class_are_told_of(tmp_path, capsys):
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    for split, classes, count in (("train", CLASSES[:2], 15), ("test", CLASSES, 2), ("pool/any", CLASSES, 2)):
        draw_photos(tmp_path / split, classes, count)
    found = said(tmp_path, capsys)
    # Of thirty images four are held out, two a class.
    step = "data.batch_size=64: an epoch is one step, of all 26 images; a smaller one, such as 4, makes it 7"
    pool = (
        "data.readers.pool: 8 images are 2.0 for each of 4 classes, too few for interpolated_prototypes to "
        "learn what these look like; before you deploy, compare what needs no pool: interpolated, alg"
    )
    assert step in found
    assert pool in found
    small = said(tmp_path, capsys, "data.batch_size=4", "calibration.use=[expected_accuracy]")
    assert "an epoch is one step" not in small
    assert "data.readers.pool" not in small
