"""The callback inside real Lightning runs, with a module that knows nothing of ftc."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from ftc import CalibrationCallback, InputError
from ftc.calibrators import (
    AnchoredLogitGap,
    AverageLogitGap,
    FixedGamma,
    Fold,
    FoldEvidence,
    OracleEvidence,
    PseudoCrossValidation,
)
from ftc.evaluation.summary import Bootstrap, Measures
from ftc.functional import (
    average_logit_gap,
    class_means,
    cosine_logits,
    logit_sums,
    partition_accuracy,
    probability_metrics,
    reduce_logits,
    seen_absent_curve,
)
from tests.callbacks.foreign import (
    CALIBRATORS,
    PARTITION,
    Foreign,
    dataset,
    every_calibrator,
    forward,
    permuted,
    trainer,
    validated,
)


def run(gallery, val, test, calibrators=None, **arguments):
    """Epoch −1, fit and test; returns callback, module and trainer."""
    torch.manual_seed(0)
    callback = CalibrationCallback(
        PARTITION,
        every_calibrator() if calibrators is None else calibrators,
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


def test_probabilities_equal_a_recomputation_and_are_logged(finished):
    callback, module, engine, data = finished
    logits, target, _ = forward(module, data["test"])
    sums, outcomes = logit_sums(logits, target, PARTITION), reduce_logits(logits, target, PARTITION)
    found = callback.evaluation
    stages = {"": (0.0, found.metrics)}
    stages |= {f"{n}/": (r.calibration.gamma, r.metrics) for n, r in found.calibrated.items()}
    assert "oracle/" in stages
    for prefix, (gamma, metrics) in stages.items():
        expected = probability_metrics(sums, outcomes, PARTITION, gamma)
        assert {k: metrics[k] for k in expected} == pytest.approx(expected, rel=1e-5)
        for name in ("nll_all", "brier_seen", "ece_absent", "confidence_absent"):
            assert float(engine.callback_metrics[f"test/{prefix}{name}"]) == pytest.approx(
                expected[name], rel=1e-5
            )
    assert {"nll_all", "ece_seen", "oracle/ece_absent"} <= set(callback.history[0])


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


def test_no_absent_data_is_a_normal_case():
    seen_only = {name: dataset(60, seed, PARTITION.seen) for name, seed in (("val", 3), ("test", 4))}
    callback, *_ = run(dataset(90, 2, PARTITION.seen), **seen_only)
    assert set(callback.evaluation.calibrated) == set(CALIBRATORS)
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
    restored = CalibrationCallback(PARTITION, every_calibrator(), loaders=("gallery", "val"))
    other = trainer(restored)
    loaders = [DataLoader(data["gallery"], 16), DataLoader(data["val"], 32)]
    other.validate(Foreign(), loaders, ckpt_path=path, verbose=False, weights_only=True)
    assert restored.calibrations == callback.calibrations
    assert [row["epoch"] for row in restored.history][:4] == [-1, 0, 1, 2]
    assert torch.equal(restored.history[1]["curve"].gamma, callback.history[1]["curve"].gamma)


def test_the_name_of_the_bound_is_taken():
    with pytest.raises(InputError, match="'oracle' is taken"):
        CalibrationCallback(PARTITION, {"oracle": FixedGamma(1.0)})


def test_anchoring_without_a_source_evaluation_says_so():
    callback = CalibrationCallback(PARTITION, {"anchored": AnchoredLogitGap()}, loaders=("gallery", "val"))
    loaders = [DataLoader(dataset(50, 2), 16), DataLoader(dataset(50, 3), 16)]
    with pytest.raises(InputError, match=r"trainer\.validate before trainer\.fit"):
        trainer(callback, num_sanity_val_steps=0).fit(Foreign(), DataLoader(dataset(64, 1), 16), loaders)


def test_validation_alone_is_an_evaluation_of_the_source():
    callback = CalibrationCallback(PARTITION, {"fixed": FixedGamma(0.5)})
    for _ in range(2):
        validated(callback, dataset(50, 3))
    assert [row["epoch"] for row in callback.history] == [-1, -1]
    assert set(callback.source.seen) == {"held_out"}
    assert len(callback.source.pool) == 50


def test_test_alone_knows_oracles_only():
    callback = CalibrationCallback(PARTITION, {"alg": AverageLogitGap(), "leak": AverageLogitGap("eval")})
    trainer(callback).test(Foreign(), DataLoader(dataset(50, 4), 16), verbose=False)
    assert set(callback.evaluation.calibrated) == {"leak_oracle", "oracle"}


def resumable(callback, folder) -> Trainer:
    keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    return trainer(callback, keep, max_epochs=4, enable_checkpointing=True)


def test_resumed_fit_continues_as_if_never_interrupted(tmp_path):
    data = {"gallery": dataset(60, 2), "val": dataset(60, 3)}
    loaders = [DataLoader(part, 16) for part in data.values()]
    train = DataLoader(dataset(90, 1, PARTITION.seen), 16)
    whole = CalibrationCallback(PARTITION, every_calibrator(), loaders=("gallery", "val"))
    engine, module = resumable(whole, tmp_path), Foreign()
    engine.validate(module, loaders, verbose=False)
    engine.fit(module, train, loaders)
    resumed = CalibrationCallback(PARTITION, every_calibrator(), loaders=("gallery", "val"))
    # No evaluation of the source: its statistics come from the checkpoint.
    resumable(resumed, tmp_path).fit(
        Foreign(), train, loaders, ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True
    )
    assert [row["epoch"] for row in resumed.history] == [-1, 0, 1, 2, 3]
    for ours, theirs in zip(resumed.history, whole.history, strict=True):
        assert {k: v for k, v in ours.items() if k != "curve"} == pytest.approx(
            {k: v for k, v in theirs.items() if k != "curve"}
        )
    for name, calibrator in resumed.calibrators.items():
        assert calibrator.calibration.gamma == pytest.approx(whole.calibrations[name].gamma), name
    assert torch.equal(resumed.source.seen["train"].gap, whole.source.seen["train"].gap)
    assert torch.equal(resumed.source.pool.margin, whole.source.pool.margin)


def test_checkpoint_restores_every_calibrator(tmp_path):
    callback = CalibrationCallback(PARTITION, every_calibrator(), loaders=("gallery", "val"))
    engine, module = trainer(callback, max_epochs=1), Foreign()
    loaders = [DataLoader(dataset(60, seed), 16) for seed in (2, 3)]
    engine.validate(module, loaders, verbose=False)
    engine.fit(module, DataLoader(dataset(64, 1), 16), loaders)
    engine.save_checkpoint(tmp_path / "run.ckpt")
    state = torch.load(tmp_path / "run.ckpt", weights_only=True)["callbacks"][callback.state_key]
    restored = CalibrationCallback(PARTITION, every_calibrator(), loaders=("gallery", "val"))
    restored.load_state_dict(state)
    for name, calibrator in restored.calibrators.items():
        assert calibrator.calibration == callback.calibrators[name].calibration is not None


def test_sanity_checking_before_fit_leaves_no_trace():
    data = {"gallery": dataset(60, 2), "val": dataset(60, 3), "test": dataset(60, 4)}
    checked, *_ = run(**data, num_sanity_val_steps=2)
    unchecked, *_ = run(**data, num_sanity_val_steps=0)
    assert [row["epoch"] for row in checked.history] == [-1, 0, 1, 2]
    assert checked.calibrations == unchecked.calibrations


def test_test_epochs_have_bootstrap_intervals_where_asked_for():
    callback = CalibrationCallback(
        PARTITION, every_calibrator(), loaders=("gallery", "val"), measures=Measures(bootstrap=Bootstrap(40))
    )
    module = validated(callback, dataset(80, 2), dataset(80, 3))
    assert not callback.evaluation.intervals
    trainer(callback).test(module, DataLoader(dataset(80, 4), 16), verbose=False)
    found = callback.evaluation
    for stage in (found, *found.calibrated.values()):
        for name in ("acc_all", "acc_seen", "acc_absent", "ausuc"):
            low, high = stage.intervals[name]
            assert low <= stage.metrics[name] <= high, name
    for name in ("alg", "prior_matched", "expected_accuracy"):
        low, high = found.calibrated[name].intervals["gamma"]
        assert low < found.calibrated[name].calibration.gamma < high
    assert found.calibrated["anchored"].intervals["gamma"] == (0.0, 0.0)
    assert "gamma" not in found.calibrated["oracle"].intervals
    assert "gamma" not in found.intervals


def test_no_intervals_unless_asked_for(finished):
    callback, *_ = finished
    assert not callback.evaluation.intervals
    assert not any(stage.intervals for stage in callback.evaluation.calibrated.values())


def test_alg_on_evaluated_samples_is_an_oracle_of_each_split():
    callback = CalibrationCallback(PARTITION, {"alg": AverageLogitGap("eval")})
    val, test = dataset(60, 3), dataset(70, 4)
    module = validated(callback, val)
    stages = {"val": callback.evaluation}
    trainer(callback).test(module, DataLoader(test, 16), verbose=False)
    stages["test"] = callback.evaluation
    for (stage, evaluation), data in zip(stages.items(), (val, test), strict=True):
        assert set(evaluation.calibrated) == {"alg_oracle", "oracle"}
        found = evaluation.calibrated["alg_oracle"].calibration
        assert found.lane == "oracle"
        assert found.uses == (f"{stage} labels (label leak)",)
        logits, target, _ = forward(module, data)
        evidence = OracleEvidence.from_logits(logits, target, PARTITION)
        assert found.gamma == pytest.approx(AverageLogitGap("eval").estimate(evidence).gamma)
    assert callback.calibrations == {}


def test_folds_are_given_as_evidence():
    pcv = PseudoCrossValidation(2, criterion="balanced")
    generator = torch.Generator().manual_seed(0)
    logits, source = (torch.randn(90, 6, generator=generator) for _ in range(2))
    target = torch.tensor(PARTITION.seen)[torch.arange(90) % 3]
    folds = tuple(
        Fold.from_logits(logits, source, target, PARTITION, fold) for fold in pcv.folds.draw(PARTITION)
    )
    evidence = FoldEvidence("two fine-tunes more", folds)
    callback = CalibrationCallback(PARTITION, {"pcv": pcv}, folds={pcv.folds: evidence})
    validated(callback, dataset(50, 3))
    assert callback.calibrations["pcv"] == pcv.estimate(evidence)
    assert callback.calibrations["pcv"].uses == ("two fine-tunes more", "source model")
    without = CalibrationCallback(PARTITION, {"pcv": pcv})
    with pytest.raises(InputError, match="pcv needs the folds of pseudo cross-validation"):
        validated(without, dataset(50, 3))


def test_statistics_of_a_source_evaluated_elsewhere(finished):
    ours, module, _, data = finished
    callback = CalibrationCallback(
        PARTITION,
        every_calibrator(),
        loaders=("gallery", "val"),
        source=ours.source,
    )
    loaders = [DataLoader(data["gallery"], 16), DataLoader(data["val"], 32)]
    trainer(callback).validate(module, loaders, verbose=False)
    assert [row["epoch"] for row in callback.history] == [0]
    for name, calibration in ours.calibrations.items():
        assert callback.calibrations[name].gamma == pytest.approx(calibration.gamma), name


def test_averages_over_classes(finished):
    _, module, _, _ = finished
    val = dataset(90, 3)
    callback = CalibrationCallback(
        PARTITION, {"alg": AverageLogitGap("held_out")}, measures=Measures(average="class", top_k=(1, 2))
    )
    trainer(callback).validate(module, DataLoader(val, 16), verbose=False)
    logits, target, _ = forward(module, val)
    found = callback.evaluation
    expected = partition_accuracy(logits, target, PARTITION, top_k=(1, 2), average="class")
    assert {k: found.metrics[k] for k in expected} == pytest.approx(expected)
    assert found.metrics["acc_all"] != pytest.approx(partition_accuracy(logits, target, PARTITION)["acc_all"])
    curve = seen_absent_curve(logits, target, PARTITION, "class")
    assert found.metrics["ausuc"] == pytest.approx(curve.ausuc)
    assert found.calibrated["oracle"].calibration.gamma == pytest.approx(curve.best())
    gamma = found.calibrated["alg"].calibration.gamma
    expected = partition_accuracy(logits, target, PARTITION, gamma, average="class")["acc_seen"]
    assert found.calibrated["alg"].metrics["acc_seen"] == pytest.approx(expected)
