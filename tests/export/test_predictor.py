"""Predictions: the same by every engine, in constant memory, with what γ decides."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ftc import ClassPartition, InputError
from ftc.export import Predictor
from ftc.export.facts import Facts
from ftc.export.formats import FORMATS, Deployment
from ftc.models import create_classifier, description, fold_calibration, restore_classifier

PARTITION = ClassPartition(6, seen=[0, 2], absent=[1, 5])
NAMES = ("ant", "bee", "cat", "dog", "elk", "fox")
GAMMA, TEMPERATURE = 1.25, 2.0
OVERLAY = {"input_size": (3, 24, 20), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "crop_pct": 0.9}


def facts_of(classifier, partition, **more) -> Facts:
    return Facts(
        class_names=NAMES,
        partition=partition.record(),
        calibrator="mine",
        preprocessing=classifier.data_config,
        **more,
    )


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    classifier = create_classifier("test_resnet", 6, kwargs={"pretrained_cfg_overlay": OVERLAY})
    with torch.no_grad():
        classifier.head.weight.normal_(std=3)
    return classifier.eval()


@pytest.fixture(scope="module")
def folder(plain, tmp_path_factory):
    """All formats of a model with γ and T folded."""
    state = fold_calibration(plain.timm_state_dict(), "fc", PARTITION, GAMMA, TEMPERATURE)
    facts = facts_of(plain, PARTITION, gamma=GAMMA, temperature=TEMPERATURE)
    deployment = Deployment(restore_classifier(description(plain), state), facts)
    folder = tmp_path_factory.mktemp("deployed")
    for name in ("timm", "onnx"):
        FORMATS[name].write(deployment, folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for i in range(40):
        pixels = generator.integers(0, 60, (30 + i, 60 - i, 3)) + generator.integers(0, 196, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    return sorted(folder.iterdir())


ENGINES = ("", "model.onnx")


@pytest.mark.parametrize("engine", ENGINES)
def test_answers_are_those_of_the_model_and_its_gamma(folder, plain, images, engine):
    predictor = Predictor(folder / engine, device="cpu", batch_size=7)
    with torch.no_grad():
        transformed = [predictor._pixels(path) for path in images]
        pixels = torch.from_numpy(np.stack(transformed)).permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(OVERLAY[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
        z = plain((pixels - mean) / std).double()
    absent = list(PARTITION.absent)
    shifted = z.clone()
    shifted[:, absent] += GAMMA
    probabilities = (shifted / TEMPERATURE).softmax(1)
    for row, found in enumerate(predictor(images, top_k=3)):
        best = shifted[row].argsort(descending=True)[:3].tolist()
        assert found.labels == tuple(NAMES[column] for column in best)
        assert found.probabilities == pytest.approx(probabilities[row, best].tolist(), abs=1e-5)
        assert found.group == PARTITION.groups()[best[0]]
        margin = float(z[row, list(PARTITION.fixed)].max() - z[row, absent].max())
        assert found.flips_at == pytest.approx(margin, abs=1e-3)
        assert (found.margin < 0) == (found.group == "absent")
    assert {found.group for found in predictor(images)} >= {"seen", "absent"}


def test_the_answer_flips_where_it_is_said_to(folder, plain, images):
    predictor = Predictor(folder, device="cpu")
    for step, sent in ((0.01, True), (-0.01, False)):
        for found in predictor(images[:8]):
            state = fold_calibration(plain.timm_state_dict(), "fc", PARTITION, found.flips_at + step)
            other = restore_classifier(description(plain), state)
            index = images.index(type(images[0])(found.file))
            pixels = torch.from_numpy(predictor._pixels(images[index])[None]).permute(0, 3, 1, 2) / 255
            mean, std = (torch.tensor(OVERLAY[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
            with torch.no_grad():
                column = int(other((pixels - mean) / std).argmax())
            assert (column in PARTITION.absent) == sent


def test_files_images_and_pixels_are_alike(folder, images):
    predictor = Predictor(folder / "model.onnx")
    opened = [Image.open(path) for path in images[:3]]
    by_file, by_image, by_pixels = (
        predictor(given) for given in (images[:3], opened, [np.asarray(image) for image in opened])
    )
    assert [p.probabilities for p in by_file] == [p.probabilities for p in by_image]
    assert [p.probabilities for p in by_image] == [p.probabilities for p in by_pixels]
    assert by_file[0].file == str(images[0]) and by_image[0].file is None


def test_an_unreadable_image_is_an_error_and_no_other_is_lost(folder, images, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    given = [images[0], tmp_path / "broken.png", tmp_path / "gone.png", images[1]]
    found = Predictor(folder / "model.onnx")(given)
    assert [p.error for p in found] == [
        None,
        "no image format that is known",
        "No such file or directory",
        None,
    ]
    assert found[3].labels and not found[1].labels
    assert found[1].row(2) == {
        **dict.fromkeys(("label", "probability", "label_2", "probability_2", "group", "margin", "flips_at")),
        "file": str(tmp_path / "broken.png"),
        "error": "no image format that is known",
    }


def test_few_images_are_in_memory_at_a_time(folder, images):
    predictor = Predictor(folder / "model.onnx", batch_size=2)
    asked = 0

    def endless():
        nonlocal asked
        while True:
            asked += 1
            yield images[asked % len(images)]

    stream = predictor.stream(endless())
    for _ in range(20):
        next(stream)
    assert asked <= 20 + 3 * 2
    stream.close()


def test_onnx_needs_no_torch(folder, images):
    code = (
        "import sys; from ftc.export import Predictor; "
        f"print(Predictor({str(folder / 'model.onnx')!r})([{str(images[0])!r}])[0].labels[0]); "
        "print([m for m in ('torch', 'timm', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert done.stdout.splitlines()[1] == "[]", done.stderr


def test_without_absent_classes_nothing_flips(plain, tmp_path):
    partition = ClassPartition(6, seen=range(6))
    FORMATS["timm"].write(Deployment(plain, facts_of(plain, partition, gamma=0.0)), tmp_path)
    (found,) = Predictor(tmp_path, device="cpu")([np.zeros((20, 20, 3), np.uint8)], top_k=9)
    assert (found.group, found.margin, found.flips_at, len(found.labels)) == ("seen", None, None, 6)


def test_what_is_no_model_is_one_line(folder, tmp_path):
    with pytest.raises(InputError, match=r"gone: no such file or folder$"):
        Predictor(tmp_path / "gone")
    with pytest.raises(InputError, match="no model that is run here; name"):
        Predictor(tmp_path)
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:1000])
    with pytest.raises(InputError, match="is damaged"):
        Predictor(tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": "test_resnet"}')
    with pytest.raises(InputError, match="does not say what it is"):
        Predictor(tmp_path)
    with pytest.raises(InputError, match="ask for at least 1 label"):
        Predictor(folder)([], top_k=0)
