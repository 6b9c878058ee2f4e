"""The embedded experiment through the real command line, and what its run folder says."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from jsonschema import Draft202012Validator
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from ftc import ClassPartition
from ftc.benchmarks.digits import mnist
from ftc.calibrators import (
    Committee,
    ExpectedAccuracy,
    Oracle,
    OracleEvidence,
    PriorMatching,
    SeenEvidence,
    UnlabelledEvidence,
)
from ftc.functional import (
    average_logit_gap,
    class_means,
    cosine_logits,
    partition_accuracy,
    seen_absent_curve,
)
from ftc.results import RunRecord
from tests.commands import as_between_gpus, run_fresh, run_train
from tests.docs.blocks import the_block

METHODS = (
    "alg",
    "committee",
    "interpolated",
    "interpolated_prototypes",
    "prior_matched",
    "expected_accuracy",
)
SHORT = ("source.max_epochs=1", "trainer.max_epochs=1", "logger=csv")


def only_run(folder: Path) -> Path:
    runs = [path.parent for path in folder.glob("outputs/digits-*/results.json")]
    assert len(runs) == 1
    return runs[0]


def without_timing(run: Path) -> dict:
    content = json.loads((run / "results.json").read_text())
    del content["timing"]
    return content


def wandb_records(path: Path) -> list:
    """Records of an offline W&B run: a seven-byte header, then LevelDB log blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    data, position, pending, records = path.read_bytes(), 7, b"", []
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        pending += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last of several parts
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pending)
            records.append(record)
            pending = b""
    return records


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="module")
def finished(home):
    """`make train`'s run, once for all tests here: its output and its folder."""
    result = run_train(home, "figures=[png]")
    assert result.returncode == 0, result.stderr
    return result, only_run(home)


@pytest.fixture(scope="module")
def results(finished) -> dict:
    return json.loads((finished[1] / "results.json").read_text())


@pytest.fixture(scope="module")
def predictions(finished) -> dict[str, torch.Tensor]:
    return load_file(finished[1] / "predictions.safetensors")


def test_the_papers_story_on_real_images(results):
    stages = results["stages"]
    source, tuned, calibrated = stages["source"], stages["fine_tuned"], stages["calibrated"]
    assert source["acc_absent"] > 0.6
    assert tuned["acc_absent"] < source["acc_absent"] - 0.2
    assert tuned["ncm_acc_absent"] > source["ncm_acc_absent"] - 0.03
    assert tuned["ncm_acc_all"] > source["ncm_acc_all"] - 0.03
    for name in ("alg", "committee", "prior_matched", "expected_accuracy"):
        assert calibrated[name]["acc_absent"] > tuned["acc_absent"] + 0.1
        assert tuned["acc_all"] + 0.02 < calibrated[name]["acc_all"] <= calibrated["oracle"]["acc_all"]
    assert calibrated["interpolated"]["acc_all"] > tuned["acc_all"] + 0.02
    assert calibrated["interpolated_prototypes"]["acc_all"] > calibrated["oracle"]["acc_all"] + 0.02
    # Another processor moves these numbers by up to three points.
    assert calibrated["prior_matched"]["acc_all"] > source["acc_all"] - 0.03


def test_results_follow_the_contract(results):
    published = Path(__file__).parents[2] / "docs" / "_static" / "results.schema.json"
    Draft202012Validator(json.loads(published.read_text(encoding="utf-8"))).validate(results)
    assert set(results) >= {"schema", "experiment", "seed", "partition", "versions", "timing", "stages"}
    assert results["schema"] == 2
    assert set(results["partition"]) == {"num_classes", "seen", "absent", "others", "sha256"}
    assert set(results["stages"]["calibrated"]) == {*METHODS, "oracle"}
    names = {"acc_all", "acc_seen", "acc_absent", "acc_seen_within", "acc_absent_within", "harmonic", "ausuc"}
    names |= {f"ncm_{name}" for name in names} | {f"{n}_top5" for n in names if n.startswith("acc_")}
    stages = results["stages"]
    for stage in (stages["source"], stages["fine_tuned"], *stages["calibrated"].values()):
        assert {"gamma", "uses"} | names <= set(stage)
    for stage in (stages["source"], stages["fine_tuned"]):
        assert set(stage["curve"]) == {"gamma", "acc_seen", "acc_absent", "acc_all"}
        assert len({len(values) for values in stage["curve"].values()}) == 1


def test_results_equal_a_recomputation_from_saved_logits(results, predictions):
    p = ClassPartition(10, results["partition"]["seen"], results["partition"]["absent"])
    stages = results["stages"]
    training = [predictions[f"fine_tuned/calibration/{field}"] for field in ("logits", "target")]

    logits, target = predictions["fine_tuned/test/logits"], predictions["fine_tuned/test/target"]
    val, val_source, val_target = (
        predictions[name] for name in ("fine_tuned/val/logits", "source/val/logits", "fine_tuned/val/target")
    )
    kept = torch.isin(val_target, torch.tensor(p.seen))
    held_out = SeenEvidence.from_logits(val[kept], val_target[kept], p, val_source[kept])
    pool = UnlabelledEvidence.from_logits(val, p, val_source, seen=held_out)
    gammas = {
        "alg": average_logit_gap(*training, p),
        "committee": Committee().fit(held_out).gamma,
        "prior_matched": PriorMatching().fit(pool).gamma,
        "expected_accuracy": ExpectedAccuracy().fit(pool).gamma,
        "oracle": Oracle().fit(OracleEvidence.from_logits(logits, target, p)).gamma,
    }
    for name, gamma in gammas.items():
        stage = stages["calibrated"][name]
        assert stage["gamma"] == pytest.approx(gamma, rel=1e-9)
        # Plain argmax over shifted logits: nothing of ours in the check.
        shifted = logits.double()
        shifted[:, list(p.absent)] += stage["gamma"]
        hits = shifted.argmax(1) == target
        absent = torch.isin(target, torch.tensor(p.absent))
        for metric, rows in (("acc_all", slice(None)), ("acc_seen", ~absent), ("acc_absent", absent)):
            assert stage[metric] == pytest.approx(float(hits[rows].double().mean()))
    for name in ("source", "fine_tuned"):
        z, y = predictions[f"{name}/test/logits"], predictions[f"{name}/test/target"]
        expected = partition_accuracy(z, y, p, top_k=(1, 5))
        assert {k: stages[name][k] for k in expected} == pytest.approx(expected)
        curve = seen_absent_curve(z, y, p)
        assert stages[name]["ausuc"] == pytest.approx(curve.ausuc)
        assert stages[name]["curve"]["acc_all"] == pytest.approx(curve.acc_all.tolist())
        features, labels = (
            torch.cat([predictions[f"{name}/{split}/{field}"] for split in ("calibration", "gallery")])
            for field in ("features", "target")
        )
        ncm = cosine_logits(predictions[f"{name}/test/features"], class_means(features, labels, 10))
        assert stages[name]["ncm_acc_all"] == pytest.approx(partition_accuracy(ncm, y, p)["acc_all"])


def test_predictions_are_the_data_in_order(predictions):
    for split in ("val", "test"):
        assert torch.equal(predictions[f"source/{split}/target"], mnist(split).targets)
        assert torch.equal(predictions[f"source/{split}/id"], torch.arange(1000))


def test_output_ends_with_the_table_and_the_folder(finished, home):
    result, run = finished
    assert result.stderr == ""
    assert "[HYDRA]" not in result.stdout
    for line in (
        "Training the source model: 15 epochs, 1,612 images of 10 classes",
        "Source model on its own domain: ",
        "source model: epoch 15 of 15, ",
        "Evaluating the source model",
        "Fine-tuning: 10 epochs, 1,500 images of 5 classes",
        "fine-tuning: epoch 10 of 10, ",
        "Evaluating moved weights: interpolated",
    ):
        assert line in result.stdout
    assert "━" not in result.stdout.partition("Time:")[0].partition("┏")[0]
    rows = ("source", "fine-tuned", "+ interpolated *", "+ committee", "+ ALG", "+ oracle")
    for row in (*rows, "+ expected accuracy", "+ prior-matched"):
        assert f"│ {row} " in result.stdout
    for column in ("Y/Y", "S/Y", "U/Y", "S/S", "U/U", "H", "AUSUC", "NCM Y/Y", "γ", "data used"):
        assert f" {column} " in result.stdout
    assert "unlabelled val" in result.stdout
    assert "nan" not in result.stdout
    assert result.stdout.splitlines()[-1] == f"Run folder: {run.relative_to(home)}"


def test_folder_is_complete(finished):
    _, run = finished
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert names >= {
        "config.yaml",
        "metrics.csv",
        "epochs.parquet",
        "predictions.safetensors",
        "source.safetensors",
        "checkpoints/last.ckpt",
        "checkpoints/calibrated.safetensors",
        "results.json",
        "figures/seen_absent_curve.png",
        "figures/accuracies.png",
        "figures/logit_scales.png",
        "figures/gains.png",
    }
    assert yaml.safe_load((run / "config.yaml").read_text())["partition"]["num_seen"] == 5
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 10  # of which all are done
    for figure in (run / "figures").iterdir():
        pixels = np.asarray(Image.open(figure).convert("L"))
        assert pixels.shape[1] > 600
        assert pixels.std() > 10


def test_epochs_hold_scalars_and_curves(finished):
    rows = pq.read_table(finished[1] / "epochs.parquet").to_pylist()
    assert [row["epoch"] for row in rows] == [-1, *range(10)]
    probed = [row["epoch"] for row in rows if row["ncm_acc_all"] is not None]
    assert probed == [-1, 4, 9]
    for row in rows:
        best = max(row["curve_acc_all"])
        assert row["oracle/acc_all"] == pytest.approx(best)
        assert len(row["curve_gamma"]) == len(row["curve_acc_seen"]) == len(row["curve_acc_absent"])
    assert rows[-1]["logit_gap_on_seen"] > rows[0]["logit_gap_on_seen"]
    with (finished[1] / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["val/alg/acc_all"]]
    assert [float(row["val/epoch"]) for row in logged] == [row["epoch"] for row in rows]
    assert [float(row["val/alg/acc_all"]) for row in logged] == pytest.approx(
        [r["alg/acc_all"] for r in rows]
    )


def test_deployed_file_predicts_as_reported_with_the_code_of_the_docs(finished, results, monkeypatch):
    monkeypatch.chdir(finished[1] / "checkpoints")
    with safe_open("calibrated.safetensors", "pt") as file:
        metadata = file.metadata()
    deployed: dict = {}
    exec(the_block("python", "load_file(", "create_transform(").text, deployed)
    reader = mnist("test")
    images = torch.stack([deployed["transform"](reader.decode(i)) for i in range(len(reader.targets))])
    with torch.no_grad():
        accuracy = float((deployed["model"].eval()(images).argmax(1) == reader.targets).double().mean())
    stage = results["stages"]["calibrated"][results["deployed"]]
    assert metadata["calibrator"] == results["deployed"] == "interpolated"
    assert float(metadata["gamma"]) == stage["gamma"]
    assert accuracy == pytest.approx(stage["acc_all"], abs=0.002)


def test_wandb_run_is_offline_and_holds_a_curve_an_epoch(finished):
    (file,) = finished[1].glob("wandb/offline-run-*/*.wandb")
    records = wandb_records(file)
    assert any(record.WhichOneof("record_type") == "exit" for record in records)
    history = [
        {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    curves = [row for row in history if "val/curve.path" in row]
    assert [json.loads(row["val/epoch"]) for row in curves] == [-1, *range(10)]
    for row in curves:
        chart = json.loads((file.parent / "files" / json.loads(row["val/curve.path"])).read_text())
        lines = [line["name"].partition(",")[0] for line in chart["data"] if line["mode"] == "lines"]
        assert lines == (["source"] if row["val/epoch"] == "-1" else ["source", "fine-tuned"])
        assert all(100 < len(line["x"]) <= 200 for line in chart["data"][: len(lines)])
    assert all(any("histogram" in key for key in row) for row in curves)
    assert any("val/alg/acc_all" in row for row in history)


def test_same_seed_same_numbers_and_a_cached_source_changes_nothing(command, tmp_path):
    once, again = (command(*SHORT, "calibration.use=[alg,symmetric]", f"run_dir={d}") for d in "ab")
    assert once.returncode == again.returncode == 0, again.stderr
    assert "Source model trained" in once.stdout
    assert "Source model cached" in again.stdout
    assert without_timing(tmp_path / "a") == without_timing(tmp_path / "b")
    first, second = (load_file(tmp_path / d / "predictions.safetensors") for d in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_finished_run_is_shown_not_repeated(finished, home):
    _, run = finished
    before = (run / "results.json").stat().st_mtime_ns
    shown = run_train(home)
    assert shown.returncode == 0
    assert "Finished before; nothing was computed" in shown.stdout
    assert "│ + interpolated * " in shown.stdout
    assert (run / "results.json").stat().st_mtime_ns == before


def test_multirun_keeps_every_job_and_a_table(command, tmp_path):
    sweep = ("-m", "partition.seed=0,1", "optimizer.name=sgd,nonsense", *SHORT[:2], "calibration.use=[alg]")
    result = command(*sweep)
    assert result.returncode != 0
    assert "optimizer.name=nonsense: choose from" in result.stderr
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["partition.seed"], row["optimizer.name"], row["status"]) for row in rows] == [
        ("0", "sgd", "finished"),
        ("0", "nonsense", "failed"),
        ("1", "sgd", "finished"),
        ("1", "nonsense", "failed"),
    ]
    assert "choose from" in rows[1]["error"]
    runs = [folder / row["run"] for row in rows if row["status"] == "finished"]
    for run, row in zip(runs, (rows[0], rows[2]), strict=True):
        record = RunRecord.read(run)
        assert float(row["alg/acc_all"]) == record.stages.calibrated["alg"].metrics["acc_all"]
        (file,) = run.glob("wandb/offline-run-*/*.wandb")
        records = wandb_records(file)
        (started,) = (r.run for r in records if r.WhichOneof("record_type") == "run")
        assert (started.display_name, started.run_group) == (run.name, folder.name)
        assert any(r.WhichOneof("record_type") == "exit" for r in records)
    assert RunRecord.read(runs[0]).partition != RunRecord.read(runs[1]).partition
    assert len(list((tmp_path / "outputs" / "cache" / "source").glob("*.safetensors"))) == 1
    assert result.stdout.count("Source model trained") == 1


@pytest.mark.slow
def test_two_processes_evaluate_as_one(tmp_path):
    short = (*SHORT, "trainer.accelerator=cpu", "calibration.use=[alg,interpolated_prototypes]")
    one = run_train(tmp_path, *short, "run_dir=one")
    path = as_between_gpus(tmp_path)
    two = run_fresh("train", tmp_path, *short, "run_dir=two", "trainer=ddp_cpu", PYTHONPATH=path)
    assert one.returncode == two.returncode == 0, two.stderr
    assert two.stdout.count("Run folder: two") == 1
    single, double = (RunRecord.read(tmp_path / name) for name in ("one", "two"))
    # The source model is the same file; no sample is counted twice or left out.
    assert double.num_samples == single.num_samples
    assert double.stages.source.metrics == pytest.approx(single.stages.source.metrics, abs=2e-3)
    first, second = (load_file(tmp_path / name / "predictions.safetensors") for name in ("one", "two"))
    training = [second[f"fine_tuned/{split}/id"] for split in ("calibration", "gallery")]
    assert torch.equal(torch.cat(training).sort().values, torch.arange(3000))
    assert torch.equal(second["fine_tuned/test/target"], mnist("test").targets)
    # Batches of another shape change a logit in its last places, no more.
    torch.testing.assert_close(second["source/test/logits"], first["source/test/logits"], atol=1e-4, rtol=0)
    # All processes have moved the head to the same place.
    heads = load_file(tmp_path / "two" / "heads.safetensors")
    weight, bias = (heads[f"interpolated_prototypes.{part}"] for part in ("weight", "bias"))
    logits, features = (second[f"interpolated_prototypes/test/{field}"] for field in ("logits", "features"))
    torch.testing.assert_close(logits, features @ weight.T + bias, atol=1e-4, rtol=0)
    found, expected = (r.stages.calibrated["interpolated_prototypes"].metrics for r in (double, single))
    assert found["acc_all"] == pytest.approx(expected["acc_all"], abs=0.03)


def test_no_absent_classes_and_mixed_precision(command, tmp_path):
    overrides = (
        "partition.seen=[0,1,2,3]",
        "partition.absent=[4]",
        "data.gallery_every=null",
        "data.iterations_per_epoch=3",
    )
    result = command(*SHORT, *overrides, "trainer.precision=bf16-mixed", "calibration.average=class")
    assert result.returncode == 0, result.stderr
    record = RunRecord.read(only_run(tmp_path))
    assert record.partition.others == (5, 6, 7, 8, 9)
    assert record.num_samples == {"seen": 400, "absent": 100, "others": 500}
    assert "ncm_acc_all" not in record.stages.source.metrics
    logits = load_file(only_run(tmp_path) / "predictions.safetensors")["fine_tuned/test/logits"]
    assert logits.dtype == torch.float32
    # Bfloat16 logits would collapse into few distinct values.
    assert len(logits.unique()) > 0.99 * logits.numel()
    assert all(value is None or math.isfinite(value) for value in record.stages.fine_tuned.metrics.values())


def test_classes_one_by_one_are_in_results_a_table_and_on_demand_in_print(finished, home):
    _, run = finished
    record = RunRecord.read(run)
    found, partition = record.per_class, record.partition.partition()
    assert found.columns == list(range(10)) and sum(found.num_samples) == 1000
    for name, accuracies in {"fine_tuned": found.fine_tuned, **found.calibrated}.items():
        stage = record.stages.fine_tuned if name == "fine_tuned" else record.stages.calibrated[name]
        seen = [accuracies[c] for c in partition.seen]
        # A hundred images of every class.
        assert sum(accuracies) / 10 == pytest.approx(stage.metrics["acc_all"])
        assert sum(seen) / len(seen) == pytest.approx(stage.metrics["acc_seen"])
    with (run / "per_class.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows] == list(partition.groups())
    assert [float(row["interpolated"]) for row in rows] == found.calibrated["interpolated"]
    shown = run_train(home, "calibration.per_class=3")
    assert shown.returncode == 0, shown.stderr
    assert "Finished before" in shown.stdout
    assert "Classes that interpolated changes most" in shown.stdout
    confusion = found.confusions["interpolated"][0]
    assert f"│ {confusion.label}     │ {confusion.predicted}         │" in shown.stdout
