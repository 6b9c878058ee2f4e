"""Saved logits through the real command line, in every kind of file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from ftc import ClassPartition, InputError
from ftc.calibrators import AnchoredLogitGap, PriorMatching, SeenEvidence, UnlabelledEvidence
from ftc.config.commands import CalibrateConfig
from ftc.evaluation.logit_files import read_logits
from ftc.functional import average_logit_gap, partition_accuracy, seen_absent_curve
from ftc.results import RunRecord
from ftc.runs.calibrate import calibrate
from tests.commands import run_module
from tests.conftest import composed, random_logits

PARTITION = ClassPartition(6, seen=[0, 2, 4], absent=[1, 3, 5])
Arrays = dict[str, np.ndarray]


def arrays(size: int, seed: int) -> Arrays:
    logits, target = random_logits(PARTITION, size, seed)
    source = logits - 1.0 * torch.isin(torch.arange(6), torch.tensor(PARTITION.seen))
    return {"logits": logits.numpy(), "target": target.numpy(), "source_logits": source.numpy()}


def save_npy(path: Path, content: Arrays) -> None:
    dtype = [(name, a.dtype, a.shape[1:]) for name, a in content.items()]
    table = np.zeros(len(content["target"]), dtype)
    for name, array in content.items():
        table[name] = array
    np.save(path, table)


def save_parquet(path: Path, content: Arrays) -> None:
    pq.write_table(pa.table({n: a.tolist() for n, a in content.items()}), path)


def save_folder(path: Path, content: Arrays) -> None:
    path.mkdir()
    for name, array in content.items():
        np.save(path / f"{name}.npy", array)


SAVERS: dict[str, Callable[[Path, Arrays], None]] = {
    ".npz": lambda path, content: np.savez(path, **content),
    ".npy": save_npy,
    ".safetensors": lambda path, content: save_file(content, path),
    ".parquet": save_parquet,
    "": save_folder,
}


@pytest.mark.parametrize("suffix", SAVERS)
def test_every_kind_of_file_gives_the_arrays_back(tmp_path, suffix):
    content, path = arrays(20, 0), tmp_path / f"data{suffix}"
    SAVERS[suffix](path, content)
    found = read_logits("eval", path)
    assert np.allclose(found.logits.numpy(), content["logits"])
    assert np.array_equal(found.target.numpy(), content["target"])
    assert np.allclose(found.source_logits.numpy(), content["source_logits"])


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("logits")
    for seed, (name, size) in enumerate({"train": 300, "val": 200, "test": 400}.items()):
        np.savez(folder / f"{name}.npz", **arrays(size, seed))
    return folder


ARGUMENTS = ("train=train.npz", "eval=test.npz", "partition.seen=[0,2,4]")


def test_record_equals_a_recomputation(home):
    use = "calibration.use=[alg,anchored,symmetric,expected_accuracy,prior_matched]"
    result = run_module("calibrate", home, *ARGUMENTS, "held_out=val.npz", use, "run_dir=full")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    record = RunRecord.read(home / "full")
    train, test = (np.load(home / f"{name}.npz") for name in ("train", "test"))
    kept = np.isin(train["target"], PARTITION.seen)
    assert f"train: {(~kept).sum()} samples are not of seen classes and take no part" in result.stdout
    seen = SeenEvidence.from_logits(
        train["logits"][kept], train["target"][kept], PARTITION, train["source_logits"][kept]
    )
    pool = UnlabelledEvidence.from_logits(test["logits"], PARTITION)
    gammas = {
        "alg": average_logit_gap(train["logits"][kept], train["target"][kept], PARTITION),
        "anchored": AnchoredLogitGap().fit(seen).gamma,
        "prior_matched": PriorMatching().fit(pool).gamma,
        "oracle": seen_absent_curve(test["logits"], test["target"], PARTITION).best(),
    }
    for name, gamma in gammas.items():
        stage = record.stages.calibrated[name]
        assert stage.gamma == pytest.approx(gamma)
        expected = partition_accuracy(test["logits"], test["target"], PARTITION, gamma)
        assert {key: stage.metrics[key] for key in expected} == pytest.approx(expected)
    source = partition_accuracy(test["source_logits"], test["target"], PARTITION)
    assert record.stages.source.metrics["acc_all"] == pytest.approx(source["acc_all"])
    assert record.stages.calibrated["prior_matched"].uses[0] == "unlabelled eval"
    assert (home / "full" / "figures" / "seen_absent_curve.png").is_file()
    assert (home / "full" / "figures" / "reliability.png").is_file()
    scaled = record.probabilities["alg"].temperatures
    assert scaled["held_out"].uses == ("seen held out",)
    assert scaled["pool"].uses == ("unlabelled eval", "seen held out", "source model")
    content = json.loads((home / "full" / "results.json").read_text())
    assert content["seed"] is None
    assert content["deployed"] is None


def test_a_finished_run_is_shown_and_named_by_its_content(home):
    first = run_module("calibrate", home, *ARGUMENTS)
    again = run_module("calibrate", home, *ARGUMENTS)
    assert first.returncode == again.returncode == 0, first.stderr
    assert "Finished before" not in first.stdout
    assert "Finished before" in again.stdout
    assert first.stdout.splitlines()[-1] == again.stdout.splitlines()[-1]
    own = ("held_out=val.npz", "calibration.use=[expected_accuracy]", "calibration.criterion=harmonic")
    other = run_module("calibrate", home, *ARGUMENTS, *own, "calibration.bootstrap.replicates=20")
    assert "expected_harmonic" in (home / other.stdout.split()[-1] / "results.json").read_text()
    assert "+ oracle, harmonic" in other.stdout
    assert other.stdout.splitlines()[-1] != first.stdout.splitlines()[-1]
    assert "Bootstrap intervals" in other.stdout


EARLY = {
    "train=nowhere.npz": "train=nowhere.npz: no such file",
    "train=data.csv": "train=data.csv: choose a file that ends in .npz, .npy, .safetensors, .parquet",
    "calibration.use=[foo]": "calibration.use=['foo']: no calibrator 'foo'; choose from alg,",
    "~partition.seen": "partition.seen: missing; give it a value",
    "eval=???": "eval: missing; give it a value",
    "calibration.use=[symmetric]": "symmetric needs labelled seen samples held out of fine-tuning",
}


@pytest.mark.parametrize("override", EARLY)
def test_wrong_input_gets_one_line_and_no_folder(home, override):
    (home / "data.csv").write_text("0")
    result = run_module("calibrate", home, *ARGUMENTS, override, "run_dir=wrong")
    assert result.returncode == 2
    assert result.stderr.startswith(f"ftc: error: {EARLY[override]}")
    assert len(result.stderr.splitlines()) == 1
    assert not (home / "wrong").exists()


LATE = {
    "partition.seen=[0,9]": "partition.seen=[0, 9]: column 9 is outside the head; choose from 0 to 5",
    "calibration.use=[pcv]": "pcv needs the folds of pseudo cross-validation, which a run of ftc.train makes",
    "calibration.use=[interpolated]": "calibration.use=['interpolated']: interpolated moves weights",
    "train=broken.npz": "train=broken.npz: cannot be read",
    "train=nameless.npz": "train=nameless.npz: no array 'logits' in it, only target",
    "train=unlabelled.npz": "train: no array 'target' in it",
    "train=infinite.npz": "train=infinite.npz: logits of row 7 are not finite",
    "train=outside.npz": "train: label 6 of row 3 is outside the head of 6 columns",
    "train=short.npz": "train=short.npz: 5 rows of target but 300 of logits",
    "train=pickled.npz": "train=pickled.npz: cannot be read (Object arrays cannot be loaded",
}


@pytest.mark.parametrize("override", LATE)
def test_what_only_the_files_tell_is_named_too(home, monkeypatch, override):
    monkeypatch.chdir(home)
    content = arrays(300, 0)
    Path("broken.npz").write_bytes(b"PK\x03\x04nonsense")
    infinite, outside = content["logits"].copy(), content["target"].copy()
    infinite[7, 0], outside[3] = np.inf, 6
    np.savez("nameless.npz", target=content["target"])
    np.savez("unlabelled.npz", logits=content["logits"])
    np.savez("infinite.npz", logits=infinite, target=content["target"])
    np.savez("outside.npz", logits=content["logits"], target=outside)
    np.savez("short.npz", logits=content["logits"], target=content["target"][:5])
    np.savez("pickled.npz", logits=np.array([{}], dtype=object))
    config = composed(CalibrateConfig, "calibrate", *ARGUMENTS, override, "run_dir=late")
    with pytest.raises(InputError, match=f"^{re.escape(LATE[override])}"):
        calibrate(config)
    assert not Path("late").exists()


def test_rows_of_different_length_are_refused(tmp_path):
    pq.write_table(pa.table({"logits": [[1.0, 2.0], [1.0]]}), tmp_path / "ragged.parquet")
    with pytest.raises(InputError, match="rows of logits have 1 to 2 values"):
        read_logits("eval", tmp_path / "ragged.parquet")
