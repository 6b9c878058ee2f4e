"""The stage of calibrators that move weights: it evaluates the model with moved weights."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

from attrs import asdict
from lightning.pytorch import LightningModule
from torch import Tensor

from ftc.assembly.components import build_callback
from ftc.callbacks import CalibrationCallback, PredictionRecorder
from ftc.errors import InputError
from ftc.evaluation.summary import calibrated_record
from ftc.functional import seen_statistics
from ftc.models import copied, load_tensors, other_weights
from ftc.runs.parts import Parts

# Hits of held-out seen samples, see `WeightPath.choose`, by the path's family and α.
Hits = dict[tuple[Hashable, float], Tensor]

# Splits whose logits are kept of a model with moved weights.
_SPLITS = ("test", "val", "pool")


def evaluate_moved_weights(
    parts: Parts,
    module: LightningModule,
    run: CalibrationCallback,
    name: str,
    source_weights: Path,
    known: Hits,
) -> dict[str, Any]:
    """Choose the weights of a calibrator, evaluate their model, and fit the calibrator on it.

    Args:
        parts: the run's parts; the classifier has the fine-tuned model's weights, before and afterwards.
        module: evaluates the classifier.
        run: the run's callback, with the calibration data under the source and the fine-tuned model.
        name: name of the calibrator.
        source_weights: the file of the source model's weights.
        known: what calibrators before this one have found; more is added.

    Returns:
        ``record``, the row of the table; ``held_out``, statistics of held-out seen samples under the model
        with moved weights, or None; ``logits``, its logits of ``test``, ``val`` and ``pool`` samples, those
        that there are; plain types and tensors.

    Raises:
        InputError: α is to be chosen, and there are no held-out seen samples.
    """
    calibrator = parts.calibrators[name]
    path = calibrator.weights
    assert path is not None
    parts.out.print(f"Evaluating moved weights: {calibrator.title}")
    source, fine_tuned = load_tensors(source_weights), copied(parts.classifier.timm_state_dict())
    alpha = path.alpha
    if alpha is None:
        alpha = path.choose(_held_out_hits(parts, module, run, name, (source, fine_tuned), known))
    with other_weights(parts.classifier, path.at(source, fine_tuned, alpha)):
        callback = build_callback(parts.config, parts.data, {name: calibrator}, source=run.source)
        recorder = PredictionRecorder(parts.data.validation_roles)
        parts.trainers.quiet(name, callback, recorder).validate(module, parts.data, verbose=False)
        parts.trainers.quiet(name, callback, recorder).test(module, parts.data, verbose=False)
    assert callback.evaluation is not None
    record = calibrated_record(callback.evaluation.calibrated[name]).model_dump()
    record["details"] = {**record.get("details", {}), "alpha": alpha}
    held_out = callback.observed.seen.get("held_out")
    return {
        "record": record,
        "held_out": None if held_out is None else asdict(held_out),
        "logits": {split: kept["logits"] for split, kept in recorder.latest.items() if split in _SPLITS},
    }


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
