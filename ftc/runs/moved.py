"""The stage of calibrators that move weights: it evaluates the model with moved weights."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from attrs import asdict
from lightning.pytorch import LightningModule
from torch import Tensor

from ftc.assembly.components import build_callback
from ftc.calibrators import (
    Calibration,
    Calibrator,
    FeatureEvidence,
    HeadEvidence,
    LinearHead,
    SeenFeatures,
    fit_all,
)
from ftc.callbacks import CalibrationCallback, PredictionRecorder
from ftc.errors import InputError
from ftc.evaluation.summary import calibrated_record
from ftc.functional import seen_statistics
from ftc.models import copied, load_tensors, other_weights
from ftc.runs.folder import Predictions
from ftc.runs.parts import Parts

# Hits of held-out seen samples, see `WeightPath.choose`, by the path's family and α.
Hits = dict[tuple[Hashable, float], Tensor]

# Splits whose outputs are kept of a model with moved weights.
_SPLITS = ("test", "val", "pool")


def evaluate_moved_weights(
    parts: Parts,
    module: LightningModule,
    run: CalibrationCallback,
    predictions: Predictions,
    name: str,
    source_weights: Path,
    known: Hits,
) -> dict[str, Any]:
    """Find the weights of a calibrator, evaluate their model, and fit the calibrator on it.

    Args:
        parts: the run's parts; the classifier has the fine-tuned model's weights, before and afterwards.
        module: evaluates the classifier.
        run: the run's callback, with the calibration data under the source and the fine-tuned model.
        predictions: the fine-tuned model's outputs, by split.
        name: name of the calibrator.
        source_weights: the file of the source model's weights.
        known: what calibrators before this one have found; more is added.

    Returns:
        ``record``, the row of the table; ``head``, tensors of the head that the calibrator moved, or None;
        ``held_out``, statistics of held-out seen samples under the model with moved weights, or None;
        ``predictions``, its logits of ``test``, ``val`` and ``pool`` samples, those that there are, and all
        outputs that another head can be fitted to; plain types and tensors.

    Raises:
        InputError: α is to be chosen, and there are no held-out seen samples; evidence that does not suffice.
    """
    calibrator = parts.calibrators[name]
    parts.out.print(f"Evaluating moved weights: {calibrator.title}")
    weights, details = copied(parts.classifier.timm_state_dict()), {}
    if calibrator.weights is not None:
        ends, alpha = (load_tensors(source_weights), weights), calibrator.weights.alpha
        if alpha is None:
            alpha = calibrator.weights.choose(_held_out_hits(parts, module, run, name, ends, known))
        weights, details = calibrator.weights.at(*ends, alpha), {"alpha": alpha}
    head, fitted = None, {}
    if calibrator.moves_head:
        calibration = _fit_head(parts, module, run, predictions, name, weights)
        assert calibration.head is not None
        fitted, head = {name: calibration}, calibration.head.named(name)
        weights = {**weights, **calibration.head.named(parts.classifier.head_name)}
    with other_weights(parts.classifier, weights):
        callback = build_callback(
            parts.config, parts.data, {name: calibrator}, source=run.source, fitted=fitted
        )
        recorder = PredictionRecorder(parts.data.validation_roles)
        parts.trainers.quiet(name, callback, recorder).validate(module, parts.data, verbose=False)
        parts.trainers.quiet(name, callback, recorder).test(module, parts.data, verbose=False)
    assert callback.evaluation is not None
    record = calibrated_record(callback.evaluation.calibrated[name]).model_dump()
    record["details"] = {**record.get("details", {}), **details}
    held_out = callback.observed.seen.get("held_out")
    return {
        "record": record,
        "head": head,
        "held_out": None if held_out is None else asdict(held_out),
        "predictions": _kept(recorder.latest, calibrator),
    }


def _kept(predictions: Predictions, calibrator: Calibrator[Any]) -> Predictions:
    # A head is fitted to features; they are the fine-tuned model's own unless the backbone moved.
    if calibrator.evidence is FeatureEvidence and calibrator.weights is not None:
        return {split: fields for split, fields in predictions.items() if split != "gallery"}
    return {split: {"logits": predictions[split]["logits"]} for split in _SPLITS if split in predictions}


def _fit_head(
    parts: Parts,
    module: LightningModule,
    run: CalibrationCallback,
    predictions: Predictions,
    name: str,
    weights: Mapping[str, Tensor],
) -> Calibration:
    """Fit a calibrator that moves the head of the model with these weights."""
    calibrator, partition = parts.calibrators[name], parts.partition
    head = LinearHead.of(weights, parts.classifier.head_name)
    features = None
    if calibrator.evidence is FeatureEvidence:
        if calibrator.weights is not None:
            run, predictions = _observed(parts, module, run, name, weights)
        features = _features(run, predictions, head)
    available = replace(run.available, head=HeadEvidence("head", head, partition), features=features)
    return next(iter(fit_all({name: calibrator}, available).values()))


def _observed(
    parts: Parts, module: LightningModule, run: CalibrationCallback, name: str, weights: Mapping[str, Tensor]
) -> tuple[CalibrationCallback, Predictions]:
    """The calibration data, and all outputs, under the model with these weights."""
    callback = build_callback(parts.config, parts.data, {}, source=run.source)
    recorder = PredictionRecorder(parts.data.validation_roles)
    with other_weights(parts.classifier, weights):
        parts.trainers.quiet(name, callback, recorder).validate(module, parts.data, verbose=False)
    return callback, recorder.latest


def _features(run: CalibrationCallback, predictions: Predictions, head: LinearHead) -> FeatureEvidence | None:
    """The features of the images that a callback observed; None without a pool."""
    unlabelled, partition = run.available.unlabelled, run.partition
    pool = "val" if run.streams.pool_from_val else "pool"
    if unlabelled is None or pool not in predictions:
        return None

    def seen(split: str) -> SeenFeatures:
        return SeenFeatures.kept(predictions[split]["features"], predictions[split]["target"], partition)

    return FeatureEvidence(
        unlabelled.origin,
        head,
        partition,
        pool=predictions[pool]["features"],
        train=seen("calibration"),
        held_out=seen("val") if "val" in predictions else None,
        unlabelled=unlabelled,
    )


def _held_out_hits(
    parts: Parts,
    module: LightningModule,
    run: CalibrationCallback,
    name: str,
    ends: tuple[dict[str, Tensor], dict[str, Tensor]],
    known: Hits,
) -> dict[float, Tensor]:
    """Hits argmax_F z = y of the held-out seen samples, bool (N,), by α; empty where logits overflow."""
    before, after = run.source.seen.get("held_out"), run.observed.seen.get("held_out")
    if before is None or after is None:
        raise InputError(
            f"{name} wants labelled seen images held out of fine-tuning; data.readers.val has none of seen "
            "classes"
        )
    path = parts.calibrators[name].weights
    assert path is not None
    recorder = PredictionRecorder(("val",))
    trainer = parts.trainers.quiet(name, recorder)
    hits = {0.0: before.hit, 1.0: after.hit}
    for alpha in path.candidates:
        if (path.family, alpha) in known:
            hits[alpha] = known[path.family, alpha]
            continue
        with other_weights(parts.classifier, path.at(*ends, alpha)):
            trainer.validate(module, parts.data.held_out_dataloader(), verbose=False)
        logits, target = (recorder.latest["val"][field] for field in ("logits", "target"))
        finite = bool(logits.isfinite().all())
        hits[alpha] = seen_statistics(logits, target, parts.partition).hit if finite else target[:0]
        known[path.family, alpha] = hits[alpha]
    return hits
