"""The callback inside real Lightning runs, with a module that knows nothing of ftc."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from ftc import CalibrationCallback, ClassPartition, InputError
from ftc.calibrators import AnchoredLogitGap, AverageLogitGap, FixedGamma, PriorMatching
from ftc.functional import (
    average_logit_gap,
    class_means,
    cosine_logits,
    partition_accuracy,
    seen_absent_curve,
)

PARTITION = ClassPartition(6, seen=[0, 2, 4], absent=[1, 5])
METHODS = {"alg": AverageLogitGap, "anchored": AnchoredLogitGap, "prior_matched": PriorMatching}


class Foreign(LightningModule):
    """Somebody's module: two layers, its own logging, several validation loaders."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Linear(8, 5)
        self.head = torch.nn.Linear(5, 6)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.head(self.body(x).relu()), y)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        features = self.body(x).relu()
        logits = self.head(features)
        self.log("my_loss", torch.nn.functional.cross_entropy(logits, y))
        return {"logits": logits, "target": y, "features": features}

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def dataset(size: int, seed: int, classes=range(6)) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    choices = torch.tensor(list(classes))
    y = choices[torch.randint(0, len(choices), (size,), generator=generator)]
    centres = torch.randn(6, 8, generator=torch.Generator().manual_seed(99))
    return TensorDataset(centres[y] + 0.7 * torch.randn(size, 8, generator=generator), y)


def permuted(data: TensorDataset, classes) -> TensorDataset:
    """The same images with the labels of these classes shuffled among themselves."""
    x, y = data.tensors
    rows = torch.isin(y, torch.tensor(list(classes))).nonzero()[:, 0]
    shuffled = y.clone()
    shuffled[rows] = y[rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))]]
    assert not torch.equal(shuffled, y)
    return TensorDataset(x, shuffled)


def trainer(callback, **arguments) -> Trainer:
    defaults = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(callbacks=[callback] if callback else [], **{**defaults, **arguments})


def run(gallery, val, test, calibrators=None, **arguments):
    """Epoch −1, fit and test; returns callback, module and trainer."""
    torch.manual_seed(0)
    callback = CalibrationCallback(
        PARTITION,
        calibrators or {name: method() for name, method in METHODS.items()},
        loaders=("gallery", "val"),
        head="head",
    )
    module, engine = Foreign(), trainer(callback, **arguments)
    loaders = [DataLoader(gallery, 16), DataLoader(val, 32)]
    train = DataLoader(dataset(90, 1, PARTITION.seen), 16, shuffle=True)
    engine.validate(module, loaders, verbose=False)
    engine.fit(module, train, loaders)
    engine.test(module, DataLoader(test, 32), verbose=False)
    return callback, module, engine


@pytest.fixture(scope="module")
def finished():
    data = {"gallery": dataset(150, 2), "val": dataset(100, 3), "test": dataset(101, 4)}
    return (*run(**data), data)


def forward(module, data):
    x, y = data.tensors
    with torch.no_grad():
        features = module.body(x).relu()
        return module.head(features), y, features


def test_reported_numbers_equal_a_recomputation(finished):
    callback, module, _, data = finished
    logits, target, features = forward(module, data["test"])
    found = callback.evaluation
    gallery_logits, gallery_target, gallery_features = forward(module, data["gallery"])
    seen = torch.isin(gallery_target, torch.tensor(PARTITION.seen))
    gamma = average_logit_gap(gallery_logits[seen], gallery_target[seen], PARTITION)
    assert found.calibrated["alg"].calibration.gamma == pytest.approx(gamma, rel=1e-6)
    for name, at in (("alg", gamma), ("oracle", seen_absent_curve(logits, target, PARTITION).best())):
        expected = partition_accuracy(logits, target, PARTITION, at)
        assert {k: found.calibrated[name].metrics[k] for k in expected} == pytest.approx(expected)
    expected = partition_accuracy(logits, target, PARTITION)
    assert {k: found.metrics[k] for k in expected} == pytest.approx(expected)
    ncm = cosine_logits(features, class_means(gallery_features, gallery_target, 6))
    assert found.metrics["ncm_acc_all"] == pytest.approx(
        partition_accuracy(ncm, target, PARTITION)["acc_all"]
    )
    norm = module.head.weight[list(PARTITION.absent)].norm(dim=1).mean().item()
    assert found.head["head_weight_norm_absent"] == pytest.approx(norm)
    assert found.num_samples == {
        "seen": int(torch.isin(target, torch.tensor(PARTITION.seen)).sum()),
        "absent": int(torch.isin(target, torch.tensor(PARTITION.absent)).sum()),
        "others": int((target == 3).sum()),
    }


def test_history_begins_with_the_source_model(finished):
    callback, *_ = finished
    assert [row["epoch"] for row in callback.history] == [-1, 0, 1, 2]
    assert callback.history[0]["anchored/gamma"] == 0
    assert callback.history[-1]["anchored/gamma"] != 0


def test_labels_of_absent_classes_reach_no_method(finished):
    callback, _, _, data = finished
    other, *_ = run(**{name: permuted(split, PARTITION.absent) for name, split in data.items()})
    assert other.calibrations == callback.calibrations
    assert [row["alg/gamma"] for row in other.history] == [row["alg/gamma"] for row in callback.history]
    ours, theirs = callback.evaluation.calibrated, other.evaluation.calibrated
    assert ours["oracle"].calibration.gamma != theirs["oracle"].calibration.gamma


def test_absent_samples_reach_no_seen_only_method(finished):
    callback, _, _, data = finished
    x, y = data["gallery"].tensors
    keep = torch.isin(y, torch.tensor(PARTITION.seen))
    other, *_ = run(TensorDataset(x[keep], y[keep]), data["val"], data["test"])
    for name in ("alg", "anchored"):
        assert other.calibrations[name].gamma == pytest.approx(callback.calibrations[name].gamma, rel=1e-9)


def test_foreign_logging_is_left_alone():
    def logged(callback):
        torch.manual_seed(0)
        module, engine = Foreign(), trainer(callback)
        val = [DataLoader(dataset(40, 2), 16), DataLoader(dataset(30, 3), 16)]
        engine.fit(module, DataLoader(dataset(64, 1, PARTITION.seen), 16), val)
        return {k: float(v) for k, v in engine.callback_metrics.items()}

    alone = logged(None)
    ours = logged(CalibrationCallback(PARTITION, loaders=("gallery", "val")))
    assert alone == {k: v for k, v in ours.items() if not k.startswith("val/")}
    assert {"val/acc_all", "val/alg/gamma", "val/ausuc", "val/logit_gap_on_seen", "val/epoch"} <= set(ours)


def test_sanity_checking_is_not_an_epoch():
    callback = CalibrationCallback(PARTITION, {"fixed": FixedGamma(1.0)})
    engine = trainer(callback, max_epochs=2, num_sanity_val_steps=2)
    engine.fit(Foreign(), DataLoader(dataset(64, 1), 16), DataLoader(dataset(30, 3), 16))
    assert [row["epoch"] for row in callback.history] == [0, 1]
    assert callback.history[0]["fixed/gamma"] == 1.0


def test_no_absent_data_is_a_normal_case():
    seen_only = {name: dataset(60, seed, PARTITION.seen) for name, seed in (("val", 3), ("test", 4))}
    callback, *_ = run(dataset(90, 2, PARTITION.seen), **seen_only)
    assert set(callback.evaluation.calibrated) == set(METHODS)
    assert math.isfinite(callback.calibrations["alg"].gamma)
    assert math.isnan(callback.evaluation.metrics["acc_absent"])
    assert math.isnan(callback.evaluation.metrics["ausuc"])
    assert "acc_absent" not in callback.evaluation.scalars()
    assert callback.evaluation.metrics["acc_seen"] > 0.5


def test_checkpoint_keeps_everything_fitted(finished, tmp_path):
    callback, _, engine, data = finished
    path = tmp_path / "run.ckpt"
    engine.save_checkpoint(path)
    torch.load(path, weights_only=True)
    restored = CalibrationCallback(
        PARTITION, {n: m() for n, m in METHODS.items()}, loaders=("gallery", "val")
    )
    other = trainer(restored)
    loaders = [DataLoader(data["gallery"], 16), DataLoader(data["val"], 32)]
    other.validate(Foreign(), loaders, ckpt_path=path, verbose=False, weights_only=True)
    assert restored.calibrations == callback.calibrations
    assert [row["epoch"] for row in restored.history][:4] == [-1, 0, 1, 2]
    assert torch.equal(restored.history[1]["curve"].gamma, callback.history[1]["curve"].gamma)


@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        (("val", "galery"), "unknown role 'galery'; choose from val, gallery, calibration, pool"),
        (("gallery",), "name 'val' once"),
        (("val", "val"), "name 'val' once"),
        (("val", "gallery"), "put 'gallery' before 'val'"),
    ],
)
def test_roles_are_checked(loaders, message):
    with pytest.raises(InputError, match=message):
        CalibrationCallback(PARTITION, loaders=loaders)


def test_the_name_of_the_bound_is_taken():
    with pytest.raises(InputError, match="'oracle' is taken"):
        CalibrationCallback(PARTITION, {"oracle": FixedGamma(1.0)})


def test_pool_and_calibration_loaders_serve_as_evidence():
    callback = CalibrationCallback(
        PARTITION,
        {"alg": AverageLogitGap(), "prior_matched": PriorMatching()},
        loaders=("calibration", "pool", "val"),
    )
    module, engine = Foreign(), trainer(callback)
    splits = [dataset(50, 2, PARTITION.seen), dataset(60, 5), dataset(70, 3)]
    engine.validate(module, [DataLoader(s, 16) for s in splits], verbose=False)
    logits, target, _ = forward(module, splits[0])
    assert callback.calibrations["alg"].gamma == pytest.approx(average_logit_gap(logits, target, PARTITION))
    from ftc.calibrators import UnlabelledEvidence

    pool = UnlabelledEvidence.from_logits(forward(module, splits[1])[0], PARTITION)
    assert callback.calibrations["prior_matched"].gamma == pytest.approx(PriorMatching().fit(pool).gamma)
    assert callback.calibrations["prior_matched"].uses[0] == "unlabelled pool"
    assert "ncm_acc_all" not in callback.evaluation.metrics


def test_anchoring_without_a_source_evaluation_says_so():
    callback = CalibrationCallback(PARTITION, {"anchored": AnchoredLogitGap()}, loaders=("gallery", "val"))
    loaders = [DataLoader(dataset(50, 2), 16), DataLoader(dataset(50, 3), 16)]
    with pytest.raises(InputError, match=r"trainer\.validate before trainer\.fit"):
        trainer(callback, num_sanity_val_steps=0).fit(Foreign(), DataLoader(dataset(64, 1), 16), loaders)


def test_loader_without_a_role_and_steps_without_logits():
    loaders = [DataLoader(dataset(20, 2), 16)] * 2
    with pytest.raises(InputError, match="validation loader 1 has no role"):
        trainer(CalibrationCallback(PARTITION, {})).validate(Foreign(), loaders, verbose=False)

    class Silent(Foreign):
        def validation_step(self, batch, batch_idx):
            return None

    with pytest.raises(InputError, match="Silent: evaluation steps must return a dict with 'logits'"):
        trainer(CalibrationCallback(PARTITION, {})).validate(Silent(), loaders[:1], verbose=False)
