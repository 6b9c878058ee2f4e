"""The part of a run's record that tells how good probabilities are, and which temperature mends them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
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
    models: dict[str, _Model] = {}
    result = {}
    for name, gamma in gammas.items():
        key = name if name in logits else "fine_tuned"
        if key not in models:
            source = {} if key == "source" or not compares else logits.get("source", {})
            models[key] = _Model(logits[key], source, target, partition, origins)
        model = models[key]
        result[name] = Probabilities(
            temperatures={
                on: Scaled(temperature=temperature, uses=uses, **model.measured(gamma, temperature))
                for on, (temperature, uses) in model.temperatures(gamma).items()
            },
            **model.measured(gamma),
        )
    return result


class _Model:
    """The samples under one model; what no γ changes is computed once.

    Args:
        logits: its logits (N, C) by split.
        source: those of the source model; empty where it is not compared with.
        target: int64 (N,), labels by split.
        partition: seen, absent and other columns.
        origins: what V and the pool are, in words.
    """

    def __init__(
        self,
        logits: Splits,
        source: Splits,
        target: Splits,
        partition: ClassPartition,
        origins: tuple[str, str],
    ) -> None:
        self.logits, self.target, self.partition, self.origins = logits, target, partition, origins
        self.outcomes = reduce_logits(logits["test"], target["test"], partition)
        self.val: tuple[Tensor, Tensor] | None = None
        self.pool: UnlabelledEvidence | None = None
        if "val" not in logits or "val" not in target:
            return
        val, labels = keep_seen(logits["val"], target["val"], partition)
        if not len(labels):
            return
        self.val = (val, labels)
        if {"val", "pool"} <= set(source) and "pool" in logits and partition.absent:
            of_source, _ = keep_seen(source["val"], target["val"], partition)
            seen = SeenEvidence.from_logits(val, labels, partition, of_source, origins[0])
            self.pool = UnlabelledEvidence.from_logits(
                logits["pool"], partition, source["pool"], origins[1], seen
            )

    def measured(self, gamma: float, temperature: float = 1.0) -> dict[str, Any]:
        """The fields of `Measured` at γ and T."""
        test = (self.logits["test"], self.target["test"], self.partition)
        sums = logit_sums(*test, temperature)
        metrics = probability_metrics(sums, self.outcomes, self.partition, gamma)
        metrics["classwise_ece_all"] = classwise_ece(*test, gamma, temperature)
        bins = {
            group: Reliability(
                confidence=found.confidence.tolist(),
                accuracy=found.accuracy.tolist(),
                num_samples=found.num_samples,
            )
            for group, found in reliability_by_group(sums, self.outcomes, self.partition, gamma).items()
        }
        return {"metrics": nullable(metrics), "reliability": bins}

    def temperatures(self, gamma: float) -> dict[str, tuple[float, tuple[str, ...]]]:
        """Temperatures at γ, with the data that each was fitted on."""
        if self.val is None:
            return {}
        origin, pool_origin = self.origins
        fitted = fit_temperature(*self.val, self.partition, gamma)
        found: dict[str, tuple[float, tuple[str, ...]]] = {"held_out": (fitted, (origin,))}
        if self.pool is None or self.pool.seen is None or self._beliefs is None:
            return found
        seen, (posterior, absent_hit) = self.pool.seen.fine_tuned, self._beliefs
        margin = self.pool.fine_tuned.margin
        accuracy = expected_accuracy((seen.margin, seen.hit), margin, posterior, absent_hit, gamma)
        temperature = matching_temperature(self.logits["pool"], self.partition, gamma, accuracy)
        found["pool"] = (temperature, (pool_origin, origin, "source model"))
        return found

    @cached_property
    def _beliefs(self) -> tuple[Tensor, float] | None:
        """The posteriors of the pool's images, and the hit rate among absent ones."""
        assert self.pool is not None
        try:
            posterior, _, absent_hit = beliefs(self.pool)
        except InputError:
            return None  # margins that do not vary tell nothing of an image's group
        return posterior, absent_hit
