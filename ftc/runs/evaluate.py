"""``python -m ftc.evaluate``: the table of a run for any checkpoint, without training."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from rich.console import Console

from ftc.assembly.components import build_calibrators, build_callback, build_module
from ftc.calibrators import Calibrator, Observed
from ftc.callbacks import CalibrationCallback, PredictionRecorder
from ftc.config.commands import EvaluateConfig
from ftc.evaluation.per_class import per_class
from ftc.evaluation.probabilities import probabilities
from ftc.evaluation.summary import Evaluation, calibrated_record, fine_tuned_record
from ftc.export.bundle import write_bundle
from ftc.files import file_digest
from ftc.models import copied
from ftc.reporting.tables import console
from ftc.results import CONFIG_FILE, RunRecord, StageRecords, versions
from ftc.runs.folder import Predictions, RunFolder, by_split, do_once
from ftc.runs.parts import (
    Parts,
    build_parts,
    build_source_stage,
    choose_classes,
    identity,
    manifest,
    shared_facts,
)
from ftc.runs.processes import all_or_none, check_shared, leads
from ftc.runs.source import load_named
from ftc.runs.stages import Stages


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a checkpoint, print the table and write the folder; a finished run is only printed again.

    Args:
        config: the configuration, with ``run_dir`` filled in.

    Returns:
        The main scalars, for a sweep's table.

    Raises:
        InputError: an error in the configuration that only building its objects shows, or a file that is no
            checkpoint of the model.
    """
    out = console(quiet=not leads())
    return do_once(config, partial(_run, config, out), out)


def _run(config: EvaluateConfig, out: Console) -> RunRecord:
    folder = RunFolder(config.folder)
    stages, has_source = Stages(folder, out), config.source.checkpoint is not None
    with ExitStack() as held:
        with all_or_none():
            calibrators = _without_training(build_calibrators(config), has_source, out)
            # The checkpoint replaces the model's own weights, which only a partition rule may look at.
            source = build_source_stage(config, out, pretrained=config.partition.by_source_model)
            partition, weights = choose_classes(source, stages)
            parts = build_parts(source, partition, calibrators, trained=False)
            if leads():
                held.enter_context(folder.claimed(config.overwrite))
        before, observed = None, Observed()
        found: dict[str, Predictions] = {}
        if has_source:
            weights = weights or source.run(stages)
            weights = source.with_new_columns(weights, parts.data, parts.new)
            with stages.timed("source_evaluation"):
                callback, before, found["source"] = _evaluation(parts, {}, None)
            observed = callback.source
        load_named(Path(config.checkpoint), parts.classifier, parts.images, config.source.strict, out)
        with stages.timed("evaluation"):
            callback, after, found["checkpoint"] = _evaluation(parts, calibrators, observed)
        # All processes take part in gathering sharded weights.
        state = copied(parts.classifier.timm_state_dict())
        record = _record(config, parts, found, callback, before, after, stages.timing)
        with all_or_none():
            if leads():
                folder.start(config, identity(config, parts.images), manifest(parts))
        check_shared(folder.path / CONFIG_FILE, lambda: shared_facts(parts, weights), leads())
        if leads():
            folder.keep_fine_tuned(state, parts.classifier, parts.images.class_names)
            if record.deployed is not None:
                write_bundle(folder.path, record, record.deployed, calibrators[record.deployed])
            folder.keep_predictions(found, record)
            folder.keep_figures(record, config.figures)
            folder.keep_per_class(record)
            folder.finish(record)
        return record


def _record(
    config: EvaluateConfig,
    parts: Parts,
    found: Mapping[str, Predictions],
    callback: CalibrationCallback,
    before: Evaluation | None,
    after: Evaluation,
    timing: dict[str, float],
) -> RunRecord:
    """The record of the source model's evaluation, if any, and the checkpoint's."""
    partition, predictions = parts.partition, found["checkpoint"]
    test, calibrated = predictions["test"], {n: calibrated_record(r) for n, r in after.calibrated.items()}
    # The default may be one of those that are left out.
    usual = config.calibration.deployed
    estimators = [name for name, calibrator in parts.calibrators.items() if calibrator.lane != "oracle"]
    origin = ("source.checkpoint", *parts.begun_from)
    return RunRecord(
        experiment=config.name,
        title=config.title(),
        seed=None,
        criterion=config.calibration.criterion,
        partition=partition.record(),
        versions=versions(),
        device=parts.trainers.device.type,
        timing=timing,
        num_samples=after.num_samples,
        deployed=usual if usual in estimators else next(iter(estimators), None),
        checkpoint=file_digest(config.checkpoint),
        per_class=per_class(test["logits"], test["target"], partition, parts.images.class_names, calibrated),
        probabilities=probabilities(
            {"fine_tuned" if n == "checkpoint" else n: by_split(p, "logits") for n, p in found.items()},
            by_split(predictions, "target"),
            partition,
            calibrated,
            callback.streams.pool_from_val,
            ("seen val", callback.streams.pool_origin),
            compares=not parts.new,
        ),
        stages=StageRecords(
            source=None if before is None else fine_tuned_record(before, origin),
            fine_tuned=fine_tuned_record(after, ("checkpoint",)),
            calibrated=calibrated,
        ),
    )


def _evaluation(
    parts: Parts, calibrators: Mapping[str, Calibrator[Any]], source: Observed | None
) -> tuple[CalibrationCallback, Evaluation, Predictions]:
    """Validate and test the classifier; ``source`` is None where it is the source model itself."""
    config = parts.config
    seed_everything(config.seed, workers=True, verbose=False)
    module = build_module(parts.classifier, config.optimizer, config.scheduler)
    callback = build_callback(config, parts.data, calibrators, source=source)
    recorder = PredictionRecorder(parts.data.validation_roles)
    trainer = parts.trainers.quiet("source model" if source is None else "checkpoint", callback, recorder)
    trainer.validate(module, parts.data, verbose=False)
    trainer.test(module, parts.data, verbose=False)
    assert callback.evaluation is not None
    return callback, callback.evaluation, dict(recorder.latest)


def _without_training(
    calibrators: Mapping[str, Calibrator[Any]], has_source: bool, out: Console
) -> dict[str, Calibrator[Any]]:
    """The calibrators that need no training; print a line about each of the others, which are left out."""
    left_out = {}
    for name, calibrator in calibrators.items():
        if calibrator.folds is not None:
            left_out[name] = "it trains further models, which ftc.train does"
        elif calibrator.moves:
            left_out[name] = "it makes a model of its own, which ftc.train does"
        elif calibrator.source and not has_source:
            left_out[name] = "it compares with the source model; give that one as source.checkpoint"
    for name, reason in left_out.items():
        out.print(f"{name} is left out: {reason}")
    return {name: calibrator for name, calibrator in calibrators.items() if name not in left_out}
