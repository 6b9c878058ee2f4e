"""Outputs reach the metrics of their loader's role."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from ftc import CalibrationCallback, InputError
from ftc.calibrators import AverageLogitGap, FixedGamma, PriorMatching, UnlabelledEvidence
from ftc.functional import average_logit_gap, class_means, cosine_logits, partition_accuracy
from ftc.functional.statistics import keep_seen
from tests.callbacks.foreign import PARTITION, Foreign, dataset, every_calibrator, forward, trainer, validated
from tests.callbacks.test_calibration import run


def test_sanity_checking_is_not_an_epoch():
    callback = CalibrationCallback(PARTITION, {"fixed": FixedGamma(1.0)})
    engine = trainer(callback, max_epochs=2, num_sanity_val_steps=2)
    engine.fit(Foreign(), DataLoader(dataset(64, 1), 16), DataLoader(dataset(30, 3), 16))
    assert [row["epoch"] for row in callback.history] == [0, 1]
    assert callback.history[0]["fixed/gamma"] == 1.0


@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        (("val", "galery"), "unknown role 'galery'; choose from val, test, gallery, calibration, pool"),
        (("gallery",), "name one of 'val' and 'test' once"),
        (("val", "val"), "name one of 'val' and 'test' once"),
        (("val", "gallery"), "put 'gallery' before 'val'"),
    ],
)
def test_roles_are_checked(loaders, message):
    with pytest.raises(InputError, match=message):
        CalibrationCallback(PARTITION, loaders=loaders)


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
    pool = UnlabelledEvidence.from_logits(forward(module, splits[1])[0], PARTITION)
    assert callback.calibrations["prior_matched"].gamma == pytest.approx(PriorMatching().fit(pool).gamma)
    assert callback.calibrations["prior_matched"].uses[0] == "unlabelled pool"
    assert "ncm_acc_all" not in callback.evaluation.metrics


def test_loader_without_a_role_and_steps_without_logits():
    loaders = [DataLoader(dataset(20, 2), 16)] * 2
    with pytest.raises(InputError, match="validation loader 1 has no role"):
        trainer(CalibrationCallback(PARTITION, {})).validate(Foreign(), loaders, verbose=False)

    class Silent(Foreign):
        def validation_step(self, batch, batch_idx):
            return None

    with pytest.raises(InputError, match="Silent: evaluation steps must return a dict with 'logits'"):
        trainer(CalibrationCallback(PARTITION, {})).validate(Silent(), loaders[:1], verbose=False)


def test_limited_validation_reports_what_was_evaluated():
    val = dataset(100, 3)
    callback = CalibrationCallback(PARTITION, {"alg": AverageLogitGap("held_out")})
    module = validated(callback, val, limit_val_batches=3)
    logits, target, _ = forward(module, TensorDataset(*(part[:48] for part in val.tensors)))
    expected = partition_accuracy(logits, target, PARTITION)
    assert {k: callback.evaluation.metrics[k] for k in expected} == pytest.approx(expected)
    assert sum(callback.evaluation.num_samples.values()) == 48
    gamma = average_logit_gap(*keep_seen(logits, target, PARTITION), PARTITION)
    assert callback.calibrations["alg"].gamma == pytest.approx(gamma)
    assert callback.calibrations["alg"].uses == ("seen val",)


def test_accumulated_gradients_change_nothing_about_epochs():
    callback, *_ = run(dataset(60, 2), dataset(60, 3), dataset(60, 4), accumulate_grad_batches=3)
    assert [row["epoch"] for row in callback.history] == [-1, 0, 1, 2]
    assert callback.history[0]["anchored/gamma"] == 0
    gammas = [row["anchored/gamma"] for row in callback.history]
    assert len(set(gammas)) == 4


def test_three_loaders_play_their_roles():
    callback = CalibrationCallback(PARTITION, every_calibrator(), loaders=("gallery", "pool", "val"))
    gallery, pool, val = dataset(50, 2), dataset(60, 5), dataset(70, 3)
    unlabelled = TensorDataset(pool.tensors[0], torch.full((60,), -1))
    # The module's own loss wants labels; this one reports none.
    module = Foreign()
    module.validation_step = lambda batch, batch_idx, dataloader_idx=0: {  # type: ignore[method-assign]
        "logits": module.head(module.body(batch[0]).relu()),
        "target": batch[1],
        "features": module.body(batch[0]).relu(),
    }
    engine = trainer(callback)
    engine.validate(module, [DataLoader(part, 16) for part in (gallery, unlabelled, val)], verbose=False)
    found = callback.calibrations
    evidence = UnlabelledEvidence.from_logits(forward(module, pool)[0], PARTITION)
    assert found["prior_matched"].gamma == pytest.approx(PriorMatching().fit(evidence).gamma)
    assert found["expected_accuracy"].uses == ("unlabelled pool", "seen val", "source model")
    logits, target, _ = forward(module, gallery)
    expected = average_logit_gap(*keep_seen(logits, target, PARTITION), PARTITION)
    assert found["alg"].gamma == pytest.approx(expected)
    assert "ncm_acc_all" in callback.evaluation.metrics


def test_a_calibrator_without_its_pool_says_so():
    callback = CalibrationCallback(PARTITION, {"prior_matched": PriorMatching()}, pool_from_val=False)
    with pytest.raises(InputError, match="prior_matched needs an unlabelled pool of target images; give"):
        validated(callback, dataset(50, 3))


def test_a_calibrator_without_seen_samples_says_so():
    absent = dataset(50, 3, PARTITION.absent)
    with pytest.raises(InputError, match="alg needs labelled seen samples held out of fine-tuning"):
        validated(CalibrationCallback(PARTITION), absent)


class NotDue:
    """A loader that is empty this time."""

    def __len__(self):
        return 3

    def __iter__(self):
        return iter(())


def test_class_means_are_of_calibration_and_gallery_images_together():
    callback = CalibrationCallback(PARTITION, loaders=("calibration", "gallery", "val"))
    train, val = dataset(90, 2), dataset(70, 3)
    is_seen = torch.isin(train.tensors[1], torch.tensor(PARTITION.seen))
    seen, others = (TensorDataset(*(t[rows] for t in train.tensors)) for rows in (is_seen, ~is_seen))
    module, engine = Foreign(), trainer(callback)
    loaders = [DataLoader(part, 16) for part in (seen, others, val)]
    engine.validate(module, loaders, verbose=False)
    _, target, features = forward(module, train)
    _, val_target, val_features = forward(module, val)
    predicted = cosine_logits(val_features, class_means(features, target, 6)).argmax(1)
    expected = float((predicted == val_target).float().mean())
    assert callback.evaluation.metrics["ncm_acc_all"] == pytest.approx(expected)
    engine.validate(module, [loaders[0], NotDue(), loaders[2]], verbose=False)
    assert not any(name.startswith("ncm") for name in callback.evaluation.metrics)


def test_images_for_class_means_come_before_what_needs_them():
    with pytest.raises(InputError, match="put 'calibration' before 'val', which needs class means"):
        CalibrationCallback(PARTITION, loaders=("gallery", "val", "calibration"))
    CalibrationCallback(PARTITION, loaders=("val", "calibration"))
