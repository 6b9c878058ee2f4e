"""The choice of γ for a deployment: from the share of absent-class images, costs, or a floor for S/Y."""

from __future__ import annotations

from typing import Literal

import torch
from attrs import frozen
from rich.console import Console
from torch import Tensor

from ftc.calibrators import SeenEvidence, UnlabelledEvidence
from ftc.calibrators.unlabelled import beliefs
from ftc.config.deployment import DeployConfig
from ftc.errors import InputError
from ftc.functional.statistics import keep_seen
from ftc.functional.tradeoff import TradeOff, effective_share, shifted_gamma
from ftc.models import Classifier, load_tensors
from ftc.partition import ClassPartition
from ftc.reporting.tables import tradeoff_table
from ftc.runs.finished import FinishedRun
from ftc.runs.folder import PREDICTIONS
from ftc.runs.outputs import images_of, logits_of

# Points of the trade-off that are printed, from the lowest margins of all images to the highest of seen ones.
_POINTS, _QUANTILES = 7, (0.02, 0.98)


@frozen
class Choice:
    """γ for a deployment.

    Attributes:
        gamma: γ in logits.
        reason: how it was chosen, in words; empty where it is the calibrator's.
    """

    gamma: float
    reason: str = ""


def choose_gamma(
    config: DeployConfig,
    run: FinishedRun,
    measured: Classifier,
    gamma: float,
    temperature: float,
    out: Console,
) -> Choice:
    """Move γ along the estimated trade-off, if the configuration asks for it, and print the trade-off.

    Args:
        config: says what is asked for.
        run: the finished run.
        measured: the model with the calibrator's γ in its bias, and no temperature.
        gamma: that γ.
        temperature: T of the deployed model.
        out: console for the table.

    Raises:
        InputError: there are no held-out seen images, a floor that no γ reaches, or no absent classes.
    """
    partition = run.partition
    usual = len(partition.absent) / (len(partition.seen) + len(partition.absent))
    share = usual if config.prior.absent is None else config.prior.absent
    asked = effective_share(share, config.costs.seen, config.costs.absent)
    floor = config.min_acc_seen
    moved = config.prior.absent is not None or config.costs.seen != config.costs.absent
    if not partition.absent or (floor is None and not moved):
        return Choice(gamma)
    found, origins = _trade_off(config, run, measured, gamma, partition)
    if floor is not None:
        chosen, how = found.largest_gamma(floor), f"the largest that leaves S/Y at {100 * floor:g} %"
    else:
        best = found.best_gamma(asked)
        weighed = f"absent classes weighing {100 * asked:.0f} %"
        if best is None:
            chosen = shifted_gamma(gamma, usual, asked, temperature)
            how = f"the calibrator's, moved by Bayes' rule from {100 * usual:.0f} % to {weighed}"
        else:
            chosen, how = best, f"the best expected accuracy with {weighed}"
    reason = f"{how}; estimated on {', '.join(origins)}"
    low, high = found.margin.quantile(torch.tensor(_QUANTILES, dtype=torch.float64)).tolist()
    if found.pool_margin is not None:
        low = min(low, float(found.pool_margin.quantile(_QUANTILES[0])))
    gammas = sorted({gamma, chosen, *torch.linspace(low, high, _POINTS).tolist()})
    rows = [(g, *found.at(g), *found.intervals(g)) for g in gammas]
    marks = {gamma: "the calibrator's", chosen: "deployed"}
    out.print(tradeoff_table(rows, marks, origins), soft_wrap=False)
    out.print(f"γ = {chosen:.2f}: {reason}")
    return Choice(chosen, reason)


def _trade_off(
    config: DeployConfig, run: FinishedRun, measured: Classifier, gamma: float, partition: ClassPartition
) -> tuple[TradeOff, tuple[str, ...]]:
    """The trade-off, and the data that it rests on."""
    saved = load_tensors(run.folder / PREDICTIONS)

    def raw(split: Literal["val", "pool"]) -> Tensor:
        """The logits of a split, γ taken out."""
        rows = saved[f"{stage}/{split}/id"]
        reader = split if getattr(run.data.readers, split) is not None else "train"
        logits = logits_of(measured, images_of(run, reader, config.allow_targets), rows)
        logits[:, list(partition.absent)] -= gamma
        return logits

    stage = next((name for name in ("fine_tuned", "checkpoint") if f"{name}/val/id" in saved), None)
    if stage is None or not run.data.held_out:
        raise InputError(
            f"run={run.folder}: held no seen images out of fine-tuning, on which the trade-off would be "
            "estimated; set data.holdout or name data.readers.val in the run, or give γ by calibrator=fixed"
        )
    target, origins = saved[f"{stage}/val/target"], ["held-out seen images"]
    val = raw("val")
    logits, labels = keep_seen(val, target, partition)
    if not len(labels):
        raise InputError(f"run={run.folder}: no held-out image is of a seen class; hold some out in the run")
    split: Literal["val", "pool"] = "pool" if f"{stage}/pool/id" in saved else "val"
    whole = split == "pool" or run.data.readers.val is not None
    source = run.record.stages.source
    # A source model that seen training images gave columns to does not know those classes by itself.
    has_source = source is not None and "seen train" not in source.uses and "source/val/logits" in saved
    of_source = keep_seen(saved["source/val/logits"], target, partition)[0] if has_source else None
    seen = SeenEvidence.from_logits(logits, labels, partition, of_source, origins[0])
    statistics = seen.fine_tuned
    if not (whole and has_source):
        return TradeOff(statistics.margin, statistics.hit), tuple(origins)
    pool = UnlabelledEvidence.from_logits(
        val if split == "val" else raw("pool"), partition, saved[f"source/{split}/logits"], "pool", seen
    )
    posterior, _, absent_hit = beliefs(pool)
    origins += [f"unlabelled {split} images", "the source model"]
    return (
        TradeOff(statistics.margin, statistics.hit, pool.fine_tuned.margin, posterior, absent_hit),
        tuple(origins),
    )
