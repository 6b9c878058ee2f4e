"""γ belongs to the weights that a run keeps, whatever the trainer's options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from ftc import InputError
from ftc.benchmarks.digits import mnist
from ftc.config.commands import TrainConfig
from ftc.data import Preprocessing
from ftc.functional import average_logit_gap
from ftc.results import RunRecord
from ftc.runs.train import train
from tests.conftest import composed

SHORT = (
    *("source.max_epochs=1", "source.iterations_per_epoch=4", "trainer.max_epochs=3", "optimizer.lr=0.05"),
    *("data.iterations_per_epoch=4", "calibration.use=[alg]", "logger=csv", "run_dir=run"),
)
OPTIONS = {
    "part of an epoch": ("+trainer.val_check_interval=0.75",),
    "steps inside an epoch": ("+trainer.max_steps=6",),
    "steps before the first validation": ("+trainer.max_steps=2",),
    "every second epoch": ("+trainer.check_val_every_n_epoch=2",),
    "epochs beyond the end": ("+trainer.check_val_every_n_epoch=7",),
    "as usual": (),
    "moved in the end": ("method=wise_ft",),
}


# The others are variations of these.
USUAL = ("as usual", "moved in the end")


@pytest.mark.parametrize(
    "options", [pytest.param(name, marks=[pytest.mark.slow] * (name not in USUAL)) for name in OPTIONS]
)
def test_gamma_is_of_the_final_weights(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    train(composed(TrainConfig, "train", "figures=[]", *SHORT, *OPTIONS[options]))
    run = Path("run")
    record, predictions = RunRecord.read(run), load_file(run / "predictions.safetensors")
    overlay = {"input_size": (1, 32, 32), "mean": (0.5,), "std": (0.5,), "crop_pct": 1.0}
    model = timm.create_model("test_resnet", num_classes=10, in_chans=1, pretrained_cfg_overlay=overlay)
    model.load_state_dict(load_file(run / "fine_tuned.safetensors"))
    preprocessing = Preprocessing(timm.data.resolve_data_config(model=model))
    reader, ids = mnist("train"), predictions["fine_tuned/calibration/id"].tolist()
    with torch.no_grad():
        logits = model.eval()(torch.stack([preprocessing.evaluation(reader.decode(i)) for i in ids]))
    gamma = average_logit_gap(logits, reader.targets[ids], record.partition.partition())
    assert record.stages.calibrated["alg"].gamma == pytest.approx(gamma, abs=1e-4)
    torch.testing.assert_close(predictions["fine_tuned/calibration/logits"], logits, atol=1e-3, rtol=0)
    assert "ncm_acc_all" in record.stages.fine_tuned.metrics
    bundle = json.loads((run / "results.json").read_text())["deployed"]
    assert bundle == "alg"


def test_a_training_without_a_step_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="fine-tuning ended before its first step"):
        train(composed(TrainConfig, "train", "figures=[]", *SHORT, "+trainer.max_time=00:00:00:00"))
    assert not Path("run/results.json").exists()


HALF = "trains on images in Lightning's own order"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("+trainer.limit_val_batches=0", "trainer.limit_val_batches=0: a run trains, validates and tests"),
        ("+trainer.limit_test_batches=0.0", "trainer.limit_test_batches=0.0: a run trains"),
        ("+trainer.max_steps=0", "trainer.max_steps=0: a run trains"),
        ("+trainer.limit_train_batches=0", "trainer.limit_train_batches=0: a run trains"),
        (
            "+trainer.overfit_batches=2",
            f"trainer.overfit_batches=2: {HALF}",
        ),
        (
            "+trainer.fast_dev_run=true",
            f"trainer.fast_dev_run=True: {HALF}",
        ),
    ],
)
def test_half_a_run_is_refused(tmp_path, monkeypatch, option, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^{message}"):
        train(composed(TrainConfig, "train", "figures=[]", *SHORT, option))
    assert list(tmp_path.iterdir()) == []
