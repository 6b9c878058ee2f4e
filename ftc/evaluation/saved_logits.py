"""Calibration of saved logits: the record of a run from arrays of any framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ftc.calibrators import Available, Calibrator, SeenEvidence, UnlabelledEvidence
from ftc.calibrators.base import SeenData
from ftc.errors import InputError
from ftc.evaluation.logit_files import SavedLogits, under_key
from ftc.evaluation.per_class import per_class
from ftc.evaluation.probabilities import probabilities
from ftc.evaluation.summary import (
    Evaluated,
    Evaluation,
    Measures,
    calibrated_record,
    evaluate,
    fine_tuned_record,
)
from ftc.functional import logit_sums, reduce_logits
from ftc.functional.gamma import non_target_gap
from ftc.functional.inputs import SEEN, as_logits, label_groups
from ftc.functional.statistics import keep_seen
from ftc.metrics import LogitScale
from ftc.partition import ClassPartition
from ftc.results import Probabilities, RunRecord, StageRecord, StageRecords, versions

# Samples whose scales are computed at a time.
ROWS = 8192


def calibrate_logits(
    name: str,
    files: Mapping[str, SavedLogits],
    partition: ClassPartition,
    calibrators: Mapping[str, Calibrator[Any]],
    measures: Measures,
) -> RunRecord:
    """The record of saved logits.

    Args:
        name: name of the record.
        files: ``eval``, and optionally ``train``, ``held_out`` and ``pool``.
        partition: seen, absent and other columns.
        calibrators: the calibrators by name.
        measures: settings of the report.

    Raises:
        InputError: names the file and the row, or the evidence that a calibrator lacks.
    """
    for key, calibrator in calibrators.items():
        if calibrator.moves:
            raise InputError(
                f"calibration.use={list(calibrators)}: {key} moves weights, which saved logits do not have; "
                "leave it out, or use ftc.train"
            )
    saved = files["eval"]
    evaluation = _evaluation(saved, partition, calibrators, _available(files, partition), measures)
    source = None
    if saved.source_logits is not None:
        of_source = SavedLogits(saved.source_logits, saved.target)
        evaluated = _evaluation(of_source, partition, {}, Available(), measures)
        source = fine_tuned_record(evaluated, ("given",))
    calibrated = {key: calibrated_record(result) for key, result in evaluation.calibrated.items()}
    return RunRecord(
        experiment=name,
        seed=None,
        criterion=measures.criterion,
        partition=partition.record(),
        versions=versions(),
        timing={},
        deployed=None,
        num_samples=evaluation.num_samples,
        per_class=per_class(
            saved.logits,
            _labels("eval", saved),
            partition,
            [str(column) for column in range(partition.num_classes)],
            calibrated,
        ),
        probabilities=_probabilities(files, partition, calibrated),
        stages=StageRecords(
            source=source,
            fine_tuned=fine_tuned_record(evaluation, ("given",)),
            calibrated=calibrated,
        ),
    )


def _probabilities(
    files: Mapping[str, SavedLogits], partition: ClassPartition, calibrated: Mapping[str, StageRecord]
) -> dict[str, Probabilities]:
    # The pool is the one that calibrators have, see `_available`.
    key = "pool" if "pool" in files else "eval"
    splits = {"test": files["eval"], "pool": files[key]}
    if "held_out" in files:
        splits["val"] = files["held_out"]
    logits = {"fine_tuned": {split: saved.logits for split, saved in splits.items()}}
    if files["eval"].source_logits is not None:
        logits["source"] = {
            split: saved.source_logits for split, saved in splits.items() if saved.source_logits is not None
        }
    labels = {"test": _labels("eval", files["eval"])}
    if "held_out" in files:
        labels["val"] = _labels("held_out", files["held_out"])
    origins = ("seen held out", f"unlabelled {key}")
    return probabilities(logits, labels, partition, calibrated, origins=origins)


def count_not_seen(saved: SavedLogits, partition: ClassPartition) -> int:
    """The number of samples that are not of seen classes."""
    assert saved.target is not None
    return int((label_groups(saved.target, partition) != SEEN).sum())


def _available(files: Mapping[str, SavedLogits], partition: ClassPartition) -> Available:
    seen: dict[SeenData, SeenEvidence] = {}
    origins: dict[SeenData, str] = {"train": "seen train", "held_out": "seen held out"}
    for on, origin in origins.items():
        if on in files:
            kept = _seen_only(on, files[on], partition)
            seen[on] = SeenEvidence.from_logits(
                kept.logits, kept.target, partition, kept.source_logits, origin
            )
    key = "pool" if "pool" in files else "eval"
    pool = files[key]
    arguments = (partition, pool.source_logits, f"unlabelled {key}", seen.get("held_out"))
    return Available(seen, under_key(key, UnlabelledEvidence.from_logits, pool.logits, *arguments))


def _seen_only(key: str, saved: SavedLogits, partition: ClassPartition) -> SavedLogits:
    target = _labels(key, saved)
    logits, kept = under_key(key, keep_seen, saved.logits, target, partition)
    source = None
    if saved.source_logits is not None:
        source, _ = under_key(f"{key}, source_logits", keep_seen, saved.source_logits, target, partition)
    return SavedLogits(logits, kept, source)


def _evaluation(
    saved: SavedLogits,
    partition: ClassPartition,
    calibrators: Mapping[str, Calibrator[Any]],
    available: Available,
    measures: Measures,
) -> Evaluation:
    target = _labels("eval", saved)
    outcomes = under_key("eval", reduce_logits, saved.logits, target, partition, measures.top_k)
    scale = LogitScale(partition)
    for rows in torch.arange(len(target)).split(ROWS):
        scale.update(saved.logits[rows], target[rows])
    gap = non_target_gap(as_logits(saved.logits, partition), outcomes.target, partition)
    sums = logit_sums(saved.logits, outcomes.target, partition)
    evaluated = Evaluated(outcomes, gap, scale.compute(), sums, origin="eval labels")
    return evaluate(evaluated, calibrators, available, partition, measures)


def _labels(key: str, saved: SavedLogits) -> Tensor:
    if saved.target is None:
        raise InputError(f"{key}: no array 'target' in it; save the labels, one head column a sample")
    return saved.target
