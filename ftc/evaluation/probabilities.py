"""The part of a run's record that tells how good probabilities are, and which temperature mends them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ftc.calibrators import SeenEvidence, UnlabelledEvidence
from ftc.calibrators.unlabelled import beliefs
from ftc.errors import InputError
from ftc.functional import (
    classwise_ece,
    fit_temperature,
    logit_sums,
    matching_temperature,
    probability_metrics,
    reduce_logits,
    reliability_by_group,
)
from ftc.functional.mixture import expected_accuracy
from ftc.functional.statistics import keep_seen
from ftc.partition import ClassPartition
from ftc.results import Probabilities, Reliability, Scaled, StageRecord, nullable

# Splits by name: ``test``, the evaluated samples; ``val``, those of V among them; ``pool``, unlabelled ones.
Splits = Mapping[str, Tensor]


def probabilities(
    logits: Mapping[str, Splits],
    target: Splits,
    partition: ClassPartition,
    calibrated: Mapping[str, StageRecord],
    pool_from_val: bool = False,
    origins: tuple[str, str] = ("seen val", "unlabelled pool"),
    compares: bool = True,
) -> dict[str, Probabilities]:
    """How good the probabilities of every stage are, at T = 1 and at every temperature that can be fitted.

    Temperatures see the labels of V alone: samples of other classes are dropped before one is fitted. That of
    the pool compares with the source model, so that the source model itself has none.

    Args:
        logits: logits (N, C) by split, of ``fine_tuned``, of ``source`` where it was evaluated, and of models
            with moved weights by name of the calibrator; each split has the same samples for all.
        target: int64 (N,), labels of ``test`` and, where there is one, of ``val``.
        partition: seen, absent and other columns.
        calibrated: the calibrated stages by name, each with its γ.
        pool_from_val: whether ``val`` without its labels is the pool.
        origins: what V and the pool are, in words.
        compares: whether the source model knows the seen classes. The pool has no temperature where it does
            not.
    """
    if pool_from_val:
        logits = {name: {**splits, "pool": splits["val"]} for name, splits in logits.items()}
    gammas = {name: 0.0 for name in ("source", "fine_tuned") if name in logits}
    gammas |= {name: stage.gamma for name, stage in calibrated.items()}
    result = {}
    for name, gamma in gammas.items():
        model = logits.get(name, logits["fine_tuned"])
        found = {}
        if "val" in model and "val" in target:
            source = {} if name == "source" or not compares else logits.get("source", {})
            found = _temperatures(model, source, target["val"], partition, gamma, origins)
        test = (model["test"], target["test"], partition, gamma)
        result[name] = Probabilities(
            temperatures={
                key: Scaled(temperature=temperature, uses=uses, **_measured(*test, temperature))
                for key, (temperature, uses) in found.items()
            },
            **_measured(*test),
        )
    return result


def _measured(
    logits: Tensor, target: Tensor, partition: ClassPartition, gamma: float, temperature: float = 1.0
) -> dict[str, Any]:
    outcomes = reduce_logits(logits, target, partition)
    sums = logit_sums(logits, target, partition, temperature)
    metrics = probability_metrics(sums, outcomes, partition, gamma)
    metrics["classwise_ece_all"] = classwise_ece(logits, target, partition, gamma, temperature)
    bins = {
        group: Reliability(
            confidence=found.confidence.tolist(),
            accuracy=found.accuracy.tolist(),
            num_samples=found.num_samples,
        )
        for group, found in reliability_by_group(sums, outcomes, partition, gamma).items()
    }
    return {"metrics": nullable(metrics), "reliability": bins}


def _temperatures(
    model: Splits,
    source: Splits,
    target: Tensor,
    partition: ClassPartition,
    gamma: float,
    origins: tuple[str, str],
) -> dict[str, tuple[float, tuple[str, ...]]]:
    """Temperatures of a model at γ, with the data that each was fitted on; ``target`` is that of ``val``."""
    logits, labels = keep_seen(model["val"], target, partition)
    if not len(labels):
        return {}
    origin, pool_origin = origins
    found: dict[str, tuple[float, tuple[str, ...]]] = {}
    found["held_out"] = (fit_temperature(logits, labels, partition, gamma), (origin,))
    if not {"val", "pool"} <= set(source) or "pool" not in model or not partition.absent:
        return found
    of_source, _ = keep_seen(source["val"], target, partition)
    seen = SeenEvidence.from_logits(logits, labels, partition, of_source, origin)
    pool = UnlabelledEvidence.from_logits(model["pool"], partition, source["pool"], pool_origin, seen)
    try:
        posterior, _, absent_hit = beliefs(pool)
    except InputError:
        return found  # margins that do not vary tell nothing of an image's group
    of_seen = (seen.fine_tuned.margin, seen.fine_tuned.hit)
    accuracy = expected_accuracy(of_seen, pool.fine_tuned.margin, posterior, absent_hit, gamma)
    temperature = matching_temperature(model["pool"], partition, gamma, accuracy)
    found["pool"] = (temperature, (pool_origin, origin, "source model"))
    return found
