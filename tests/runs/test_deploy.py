"""A run's model in formats that need no ftc: the same labels, or nothing is written."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from ftc.export.formats.onnx import OPSET
from ftc.models import load_metadata, load_tensors, save_weights
from tests.commands import run_module
from tests.docs.blocks import the_block
from tests.runs.conftest import CLASSES, OWN

FORMATS = "formats=[timm,onnx,onnx_int8,torch_export]"


@pytest.fixture(scope="module")
def deployed(own_run) -> Path:
    """The run's folder after everything was deployed from it, to ``deployed``."""
    done = run_module("deploy", own_run, "run=run", "to=deployed", FORMATS, "license=mit")
    assert done.returncode == 0, done.stderr
    assert (
        "Deployed: deployed (config.json, model.safetensors, model.onnx, model.int8.onnx, model.pt2, "
        "README.md)" in done.stdout
    )
    (own_run / "deploy.txt").write_text(done.stdout)
    return own_run


def alone(home: Path, code: str) -> str:
    """What Python prints that cannot import ftc."""
    code = f"import sys\nsys.modules['ftc'] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=home, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_format_has_the_row_of_the_runs_table(deployed):
    rows = [
        line.split("│")[1:-1] for line in (deployed / "deploy.txt").read_text().splitlines() if "│" in line
    ]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    for title in ("timm", "ONNX", "torch.export"):
        assert cells[title][:5] == cells["the run's model"][:5]
        assert cells[title][-1] == "100.00"
        assert float(cells[title][-2]) < 1e-4
    assert float(cells["ONNX, 8 bits"][-2]) > 1e-4


def test_files_can_be_read_by_everyone(deployed):
    files = list((deployed / "deployed").iterdir())
    assert {"config.json", "model.safetensors", "model.onnx", "model.pt2", "README.md"} <= {
        f.name for f in files
    }
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in files)


def test_plain_timm_has_names_preprocessing_and_gamma(deployed):
    model = timm.create_model(f"local-dir:{deployed / 'deployed'}", pretrained=True).eval()
    assert model.pretrained_cfg["label_names"] == list(CLASSES)
    assert tuple(timm.data.resolve_model_data_config(model)["input_size"]) == (3, 40, 32)
    plain = timm.create_model("test_resnet", num_classes=6)
    results = json.loads((deployed / "run" / "results.json").read_text())
    metadata = load_metadata(deployed / "run" / "checkpoints" / "calibrated.safetensors")
    plain.load_state_dict(load_tensors(deployed / "run" / "checkpoints" / "calibrated.safetensors"))
    assert metadata["gamma"] == results["stages"]["calibrated"][results["deployed"]]["gamma"]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in plain.state_dict().items())


def test_onnx_says_what_it_is_and_takes_batches_of_any_size(deployed):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(deployed / "deployed" / "model.onnx"))
    told = {name: json.loads(v) for name, v in session.get_modelmeta().custom_metadata_map.items()}
    assert told["class_names"] == list(CLASSES)
    assert (told["partition"]["seen"], told["partition"]["absent"]) == ([0, 1], [2, 3])
    assert (told["opset"], told["temperature"]) == (OPSET, 1.0)
    assert told["preprocessing"]["input_size"] == [3, 40, 32]
    for size in (1, 3, 8):
        images = np.zeros((size, 40, 32, 3), np.uint8)
        logits, probabilities = session.run(None, {"images": images})
        np.testing.assert_allclose(probabilities.sum(1), np.ones(size), rtol=1e-5)
        assert logits.shape == (size, 6)


def test_the_example_of_the_docs_predicts(deployed, monkeypatch, capsys):
    monkeypatch.chdir(deployed)
    shutil.copy(next((deployed / "photos" / "test" / "dog").glob("*.jpg")), "photo.jpg")
    exec(the_block("python", "Predictor(").text, {})
    assert re.match(r"\('\w+', '\w+', '\w+'\) \(0\.", capsys.readouterr().out)


@pytest.mark.slow
def test_every_way_of_the_card_to_load_the_model_gives_the_same_label(deployed):
    card = (deployed / "deployed" / "README.md").read_text()
    image = next((deployed / "photos" / "test" / "dog").glob("*.webp"))
    shutil.copy(image, deployed / "image.jpg")  # a name says nothing
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(blocks) == 5
    labels = [alone(deployed, block).strip() for block in blocks]
    assert len(set(labels[:2] + labels[3:4])) == 1
    assert re.search(r"'label': '(.*?)'", labels[4])[1] == labels[0]
    (command,) = re.findall(r"```bash\npython -m ftc\.predict (.*?)\n```", card)
    done = run_module("predict", deployed, *command.split(), "to=one.jsonl")
    assert done.returncode == 0, done.stderr
    assert json.loads((deployed / "one.jsonl").read_text())["label"] == labels[0]


def test_the_card_tells_what_the_record_has(deployed):
    card = (deployed / "deployed" / "README.md").read_text()
    results = json.loads((deployed / "run" / "results.json").read_text())
    manifest = json.loads((deployed / "run" / "partition.json").read_text())
    data = ModelCard(card).data.to_dict()
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == (
        *("mit", "timm"),
        "image-classification",
    )
    for split in ("train", "test"):
        assert f"`{manifest['samples'][split]['sha256']}`" in card
    assert "**seen** (2), with target-domain training images: ant, bée" in card
    assert "**others** (2), " in card and "elk, fox" in card
    for row, name in enumerate(results["per_class"]["names"]):
        accuracy = results["per_class"]["calibrated"][results["deployed"]][row]
        assert re.search(rf"^\| {name} \| \w+ \| 6 \| [\d.]+ \| {100 * accuracy:.1f} \|$", card, flags=re.M)


def test_any_calibrator_of_the_run_but_the_oracle(deployed):
    done = run_module("deploy", deployed, "run=run", "to=alg", "calibrator=alg", "push=you/model")
    assert done.returncode == 0, done.stderr
    assert "no login, so nothing was uploaded; it would be README.md, config.json, model.safetensors" in (
        done.stdout
    )
    results = json.loads((deployed / "run" / "results.json").read_text())
    told = json.loads((deployed / "alg" / "config.json").read_text())["ftc"]
    assert told["gamma"] == results["stages"]["calibrated"]["alg"]["gamma"]
    assert "hf-hub:you/model" in (deployed / "alg" / "README.md").read_text()
    for name, why in (("oracle", "looks at evaluated labels"), ("pcv", "is none of the run's")):
        refused = run_module("deploy", deployed, "run=run", "to=no", f"calibrator={name}")
        assert refused.stderr.startswith(f"ftc: error: calibrator={name}: {why}; choose from ")
        assert refused.stderr.count("\n") == 1 and not (deployed / "no").exists()


def test_what_exists_is_replaced_only_when_asked_for_and_only_if_it_is_ours(deployed):
    shutil.copytree(deployed / "deployed", deployed / "again")
    again = ("run=run", "to=again", "calibrator=alg", "min_acc_seen=0.4", "temperature=2.5")
    refused = run_module("deploy", deployed, *again)
    assert "to=again: exists; choose another folder, or set overwrite=true" in refused.stderr
    done = run_module("deploy", deployed, *again, "overwrite=true")
    assert done.returncode == 0, done.stderr
    assert not (deployed / "again" / "model.onnx").exists()
    told = json.loads((deployed / "again" / "config.json").read_text())["ftc"]
    assert told["temperature"] == 2.5
    assert re.search(r"γ = -?[\d.]+: the largest that leaves S/Y at 40 %; estimated on held-out", done.stdout)
    assert "all logits are divided by it" in (deployed / "again" / "README.md").read_text()
    (deployed / "mine").mkdir()
    (deployed / "mine" / "README.md").write_text("mine")
    refused = run_module("deploy", deployed, "run=run", "to=mine", "overwrite=true")
    assert "to=mine: exists and is no deployed model" in refused.stderr
    assert (deployed / "mine" / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("min_acc_seen=0.999",), "min_acc_seen=0.999: S/Y of the 4 held-out seen images is "),
        (("min_acc_seen=0.5", "prior.absent=0.2"), "min_acc_seen=0.5: decides γ alone"),
        (("temperature=pool",), "temperature=pool: the run fitted none; choose from held_out, none"),
        (("formats=[timm,timm]",), "formats=['timm', 'timm']: name each format once"),
        (("formats=[tflite]",), "formats[0]=tflite: input should be 'timm', 'onnx', "),
        (("prior.absent=1.2",), "prior.absent=1.2: input should be less than 1"),
        (("run=photos",), "run=photos: no folder of a finished run"),
        (("to=run",), "to=run: is the run's folder"),
    ],
)
def test_what_cannot_be_is_one_line(own_run, arguments, line):
    refused = run_module("deploy", own_run, *{"run": "run=run", "to": "to=never"}.values(), *arguments)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert refused.stderr.startswith(f"ftc: error: {line}")
    assert not (own_run / "never").exists()


@pytest.fixture
def copy(own_run, tmp_path) -> Path:
    """A copy of the run and its images."""
    for name in ("photos", "run", "names.txt", "source.safetensors"):
        path = own_run / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / name)
    return tmp_path


def refusal(home: Path, *arguments: str) -> str:
    before = left(home)
    done = run_module("deploy", home, "run=run", "to=out", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert left(home) == before
    return done.stderr


def left(home: Path) -> set[Path]:
    """Everything in a folder but the cache of images."""
    return {path for path in home.rglob("*") if "outputs" not in path.parts}


def test_weights_that_are_not_the_measured_ones_are_refused(copy):
    path = copy / "run" / "fine_tuned.safetensors"
    weights, metadata = load_tensors(path), load_metadata(path)
    weights["fc.weight"] = weights["fc.weight"].flip(0)
    save_weights(path, weights, metadata)
    assert "its files are not those that it measured" in refusal(copy, "calibrator=alg")


def test_other_test_images_are_refused(copy):
    (copy / "photos" / "test" / "dog" / "3.gif").unlink()
    assert "data.readers.test has 23 samples that are not the 24 of the run" in refusal(copy)


@pytest.mark.parametrize(
    "format", ["timm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("onnx", "torch_export"))]
)
def test_an_export_that_is_another_model_is_refused(copy, format, monkeypatch, capsys):
    """A deliberately corrupted artefact: the format writes a model whose head is turned upside down."""
    from ftc import InputError
    from ftc.config.deployment import DeployConfig
    from ftc.export.formats import FORMATS, Deployment
    from ftc.models import description, restore_classifier
    from ftc.runs.deploy import deploy
    from tests.conftest import composed

    monkeypatch.chdir(copy)
    kind = type(FORMATS[format])
    write = kind.write

    def corrupted(self, deployment, folder):
        state = deployment.classifier.timm_state_dict()
        state["fc.weight"] = state["fc.weight"].flip(0)
        state["fc.bias"] = state["fc.bias"].flip(0)
        other = restore_classifier(description(deployment.classifier), state)
        write(self, Deployment(other, deployment.facts), folder)

    monkeypatch.setattr(kind, "write", corrupted)
    config = composed(DeployConfig, "deploy", "run=run", "to=out", f"formats=[{format}]")
    with pytest.raises(
        InputError, match=rf"^formats={format}: is not the model that was measured: \d+ of 24"
    ):
        deploy(config)
    assert not (copy / "out").exists() and not list(copy.glob(".part-*"))


def test_what_an_exporter_raises_is_one_line(copy, monkeypatch):
    from ftc import InputError
    from ftc.config.deployment import DeployConfig
    from ftc.export.formats import FORMATS
    from ftc.runs.deploy import deploy
    from tests.conftest import composed

    def unknown(self, deployment, folder):
        raise RuntimeError("no such\noperator")

    monkeypatch.chdir(copy)
    monkeypatch.setattr(type(FORMATS["timm"]), "write", unknown)
    with pytest.raises(
        InputError, match=r"^formats=timm: this model cannot be exported \(no such operator\)"
    ):
        deploy(composed(DeployConfig, "deploy", "run=run", "to=out"))
    assert not (copy / "out").exists()


def test_an_artefact_with_other_names_is_refused(copy, monkeypatch):
    from ftc import InputError
    from ftc.config.deployment import DeployConfig
    from ftc.export.formats import FORMATS
    from ftc.runs.deploy import deploy
    from tests.conftest import composed

    monkeypatch.chdir(copy)
    write = type(FORMATS["timm"]).write

    def renamed(self, deployment, folder):
        write(self, deployment, folder)
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"ant"', '"bee"'))

    monkeypatch.setattr(type(FORMATS["timm"]), "write", renamed)
    with pytest.raises(InputError, match=r"^formats=timm: it calls its columns bee, "):
        deploy(composed(DeployConfig, "deploy", "run=run", "to=out"))
    assert not (copy / "out").exists()


@pytest.mark.slow
def test_float_input_where_asked_for(own_run):
    done = run_module(
        "deploy", own_run, "run=run", "to=floats", "formats=[onnx,torch_export]", "input=float32"
    )
    assert done.returncode == 0, done.stderr
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(own_run / "floats" / "model.onnx"))
    (given,) = session.get_inputs()
    assert (given.type, given.shape[1:]) == ("tensor(float)", [3, 40, 32])


def test_a_run_of_an_older_version_is_one_line(copy):
    path = copy / "run" / "fine_tuned.safetensors"
    metadata = load_metadata(path)
    metadata |= {"model": {"kind": "timm", "name": "test_resnet"}}
    metadata.pop("data_config")
    save_weights(path, load_tensors(path), metadata)
    assert "does not say what it is (preprocessing), as models of this version do" in refusal(copy)


@pytest.mark.parametrize(
    "name",
    ["results.json", "config.yaml", "partition.json", "fine_tuned.safetensors", "source.safetensors"],
)
@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b""])
def test_a_damaged_file_of_the_run_is_one_line(copy, name, damage):
    path = copy / "run" / name
    path.write_bytes(damage(path.read_bytes()))
    assert name in refusal(copy)


def test_a_configuration_that_somebody_changed_is_one_line(copy):
    path = copy / "run" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    for key, wrong in (("data", None), ("calibration", {"use": []}), ("data", {"columns": 3})):
        path.write_text(yaml.safe_dump({**content, key: wrong}))
        assert f"config.yaml: {'has no ' if wrong is None else ''}{key}" in refusal(copy)
    content["data"]["readers"]["test"] = {"_target_": "os.system", "command": "true"}
    path.write_text(yaml.safe_dump(content))
    assert "data.readers.test=os.system: would run code" in refusal(copy)


@pytest.mark.slow
def test_an_evaluated_checkpoint_deploys_as_a_run_does(own_run):
    own = [argument for argument in OWN if not argument.startswith(("trainer", "run_dir"))]
    done = run_module("evaluate", own_run, *own, "checkpoint=run/fine_tuned.safetensors", "run_dir=evaluated")
    assert done.returncode == 0, done.stderr
    for run in ("evaluated", "run"):
        done = run_module(
            "deploy", own_run, f"run={run}", f"to=of_{run}", "calibrator=committee", "prior.absent=0.3"
        )
        assert done.returncode == 0, done.stderr
    first, second = (load_file(own_run / f"of_{run}" / "model.safetensors") for run in ("evaluated", "run"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
