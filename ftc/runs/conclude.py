"""The last stage of a run: it writes the record, the files and the model to deploy."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ftc.evaluation.analyses import analyses
from ftc.evaluation.objectives import oracle_scores, seen_only_scores
from ftc.evaluation.per_class import per_class
from ftc.evaluation.probabilities import probabilities
from ftc.export.bundle import write_bundle
from ftc.functional import SeenStatistics, predicted_columns
from ftc.functional.gamma import is_no_worse
from ftc.metrics import FeatureDrift
from ftc.models import begun_columns, copied, head_rows, load_tensors
from ftc.partition import ClassPartition
from ftc.results import OwnDomain, Probabilities, RunRecord, StageRecord, StageRecords, nullable, versions
from ftc.runs.finished import FinishedRun
from ftc.runs.folder import Predictions, by_split
from ftc.runs.planes import plane_figures
from ftc.runs.processes import leads
from ftc.runs.stages import Stages
from ftc.runs.training import Training

Result = Mapping[str, Any]

# What every method trains on, in words.
SEEN_TRAIN = "seen train"

# The accuracy on held-out samples that fine-tuning may cost before a run says so, a fraction.
CHANCE = 0.01


def conclude(
    training: Training,
    stages: Stages,
    source_weights: Path,
    own_domain: OwnDomain | None,
    before: Result,
    after: Result,
    moved: Mapping[str, Result],
) -> RunRecord:
    """Write everything a finished run keeps, ``results.json`` last.

    Args:
        training: the run's training; its classifier has the fine-tuned model's weights.
        stages: the run's stages, with folder and times.
        source_weights: the file of the source model's weights.
        own_domain: the source model on its own domain.
        before, after: results of `Training.evaluate_source` and `Training.test`.
        moved: results of `evaluate_moved_weights`, by calibrator.
    """
    parts, folder, callback = training.parts, stages.folder, training.callback
    with stages.timed("report"):
        test = after["predictions"]["test"]
        predictions = {"source": before["predictions"], "fine_tuned": after["predictions"]}
        records = _stage_records(before, after, moved, list(parts.calibrators), training.module.method.uses)
        deployed = parts.config.calibration.deployed
        # All processes take part in gathering sharded weights.
        weights, head = copied(parts.classifier.timm_state_dict()), parts.classifier.head_name
        record = RunRecord(
            experiment=parts.config.name,
            title=parts.config.title(),
            method=training.module.method.title,
            trainable=training.module.num_trainable,
            seed=parts.config.seed,
            criterion=parts.config.calibration.criterion,
            partition=parts.partition.record(),
            versions=versions(),
            device=parts.trainers.device.type,
            timing={},
            num_samples=after["num_samples"],
            deployed=deployed,
            own_domain=own_domain,
            near_copies=before["near_copies"],
            lost_on_held_out=_lost_on_held_out(training),
            feature_drift=_feature_drift(predictions, parts.partition),
            analyses=analyses(
                (before["predictions"]["test"]["features"], test["features"]),
                test["target"],
                (head_rows(load_tensors(source_weights), head), head_rows(weights, head)),
                parts.partition,
                parts.images.class_names,
                begun_columns(source_weights),
            ),
            per_class=per_class(
                test["logits"],
                test["target"],
                parts.partition,
                parts.images.class_names,
                records.calibrated,
                _predicted(records, moved, parts.partition),
            ),
            probabilities=_probabilities(training, predictions, moved, records),
            selection=_selection(training, records, after["predictions"], moved),
            stages=records,
        )
        if leads():
            folder.keep_source(source_weights)
            folder.keep_fine_tuned(weights, parts.classifier, parts.images.class_names)
            folder.keep_heads(dict(ChainMap(*(result["head"] or {} for result in moved.values()))))
            write_bundle(folder.path, record, deployed, parts.calibrators[deployed])
            of_moved = {name: result["predictions"] for name, result in moved.items()}
            folder.keep_predictions({**predictions, **of_moved}, record)
            folder.keep_epochs(callback.history)
            folder.keep_figures(record, parts.config.figures, callback.history)
            folder.keep_per_class(record)
            if parts.config.figures:
                finished = FinishedRun(folder.path, record, parts.config.model_dump())
                folder.keep_drawn(plane_figures(finished), parts.config.figures)
    record = record.model_copy(update={"timing": stages.timing})
    if leads():
        folder.finish(record)
    return record


def _stage_records(
    before: Result, after: Result, moved: Mapping[str, Result], order: list[str], trained_on: tuple[str, ...]
) -> StageRecords:
    """The rows of the table: calibrators in the order of ``calibration.use``, oracles last.

    A calibrated model rests on its training's data too; that these are seen training images goes without
    saying.
    """
    beyond = tuple(name for name in trained_on if name != SEEN_TRAIN)
    results = {**after["calibrated"], **{name: result["record"] for name, result in moved.items()}}
    names = sorted(results, key=lambda name: order.index(name) if name in order else len(order))
    return StageRecords(
        source=StageRecord(**before["model"]),
        fine_tuned=StageRecord(**after["model"]),
        calibrated={
            name: StageRecord(**{**results[name], "uses": (*beyond, *results[name]["uses"])})
            for name in names
        },
    )


def _selection(
    training: Training, records: StageRecords, predictions: Predictions, moved: Mapping[str, Result]
) -> dict[str, float | None]:
    """The selection numbers, see docs/definitions.md, "Metrics"."""
    parts, callback = training.parts, training.callback
    name = parts.config.calibration.deployed
    if name in moved:
        kept = moved[name]["held_out"]
        seen = None if kept is None else SeenStatistics(**kept)
    else:
        seen = callback.observed.seen.get("held_out")
    stage = records.calibrated.get(name)
    val = predictions.get("val") if parts.config.data.held_out else None
    scores = seen_only_scores(
        parts.partition,
        None if val is None else (val["logits"], val["target"]),
        (seen, stage.gamma) if seen and stage and stage.lane == "seen_only" else None,
        callback.folds.values(),
    )
    bounds = oracle_scores(records.fine_tuned, records.calibrated, parts.config.calibration.criterion)
    return {**nullable(scores), **bounds}


def _lost_on_held_out(training: Training) -> tuple[float, float] | None:
    """See `ftc.results.RunRecord`."""
    models = (training.callback.source, training.callback.observed)
    before, after = (model.seen.get("held_out") for model in models)
    if before is None or after is None or training.parts.new or is_no_worse(after.hit, before.hit, CHANCE):
        return None
    return float(before.hit.double().mean()), float(after.hit.double().mean())


def _predicted(
    records: StageRecords, moved: Mapping[str, Result], partition: ClassPartition
) -> dict[str, Tensor]:
    """What models with moved weights predict for the test samples, each at its γ."""
    gammas = {name: records.calibrated[name].gamma for name in moved}
    return {
        name: predicted_columns(result["predictions"]["test"]["logits"], partition, [gammas[name]])[0]
        for name, result in moved.items()
    }


def _probabilities(
    training: Training,
    predictions: Mapping[str, Predictions],
    moved: Mapping[str, Result],
    records: StageRecords,
) -> dict[str, Probabilities]:
    streams = training.callback.streams
    return probabilities(
        {
            **{name: by_split(of_model, "logits") for name, of_model in predictions.items()},
            **{name: by_split(result["predictions"], "logits") for name, result in moved.items()},
        },
        by_split(predictions["fine_tuned"], "target"),
        training.parts.partition,
        records.calibrated,
        streams.pool_from_val,
        ("seen val", streams.pool_origin),
        compares=not training.parts.new,
    )


def _feature_drift(
    predictions: Mapping[str, Predictions], partition: ClassPartition
) -> dict[str, float | None]:
    # Every process has all predictions, on the CPU, where what joins GPUs could not add them up.
    drift = FeatureDrift(partition, sync_on_compute=False)
    source, fine_tuned = predictions["source"]["test"], predictions["fine_tuned"]["test"]
    drift.update(fine_tuned["features"], source["features"], fine_tuned["target"])
    return nullable(drift.compute())
