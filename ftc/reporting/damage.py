"""The damage report: what fine-tuning did to a model, and what a calibrator mends of it, in words."""

from __future__ import annotations

from collections.abc import Iterator

from ftc.reporting.names import decimal, stage_title
from ftc.results import METRICS, RunRecord, StageRecord

# A gain of the oracle below this, a fraction, is nothing to share out.
_LEAST_GAIN = 0.005


def damage_report(record: RunRecord) -> list[str]:
    """Sentences on a run: accuracies, features, order among absent classes, scale, calibrators, who pays.

    A difference of accuracies is told of where it exceeds two standard errors of two samples of this size;
    the samples are the same, so that smaller ones may be real. What is not known is left out, and where no
    absent-class image was evaluated, that is all there is to say of them.
    """
    source = None if record.checkpoint is not None else record.stages.source
    lines = []
    if source is not None:
        lines += [*_accuracies(record, source), *_features(record, source), *_order(record, source)]
        lines += _scale(record, source)
    if record.num_samples.get("absent"):
        lines += [*_recovered(record), *_payers(record)]
    else:
        lines.append("No image of an absent class was evaluated: what happened to them is not known.")
    return [*lines, *exceptions(record)]


def exceptions(record: RunRecord) -> Iterator[str]:
    """Sentences on a fine-tuned model that is worse than its source, where that is so."""
    mend = (
        "fine-tune less (optimizer.lr, trainer.max_epochs), or deploy a calibrator that moves weights back, "
        "such as interpolated"
    )
    if record.lost_on_held_out is not None:
        before, after = (f"{100 * accuracy:.1f} %" for accuracy in record.lost_on_held_out)
        yield f"Fine-tuning made the model worse on held-out seen images (S/F {before} → {after}): {mend}."
    source, oracle = record.stages.source, record.stages.calibrated.get("oracle")
    if source is not None and oracle is not None:
        alone, best = (stage.metrics.get(record.criterion) or 0.0 for stage in (source, oracle))
        if alone > best:
            name, alone, best = METRICS[record.criterion], 100 * alone, 100 * best
            yield (
                f"The source model alone has {name} {alone:.1f} %, more than the fine-tuned one with any γ, "
                f"{best:.1f} % (by test labels): {mend}."
            )


def _accuracies(record: RunRecord, source: StageRecord) -> Iterator[str]:
    parts = []
    for metric, subject in (("acc_seen", "seen"), ("acc_absent", "absent")):
        pair = _pair(source, record.stages.fine_tuned, metric)
        if pair is not None:
            change = _change(*pair, record.num_samples.get(subject, 0))
            verb = {1: "raised", 0: "left", -1: "lowered"}[change]
            parts.append(f"{verb} the accuracy on {subject} classes ({METRICS[metric]}) {_moved(*pair)}")
    if parts:
        yield f"Fine-tuning {' and '.join(parts)}."


def _features(record: RunRecord, source: StageRecord) -> Iterator[str]:
    pair = _pair(source, record.stages.fine_tuned, "ncm_acc_absent")
    if pair is None:
        return
    change = _change(*pair, record.num_samples.get("absent", 0))
    verdict = {1: "got better", 0: "are as good as before", -1: "were damaged"}[change]
    yield (
        f"The features of absent classes {verdict}: a nearest-class-mean classifier on them went "
        f"{_moved(*pair)} (NCM U/Y)."
    )


def _order(record: RunRecord, source: StageRecord) -> Iterator[str]:
    pair = _pair(source, record.stages.fine_tuned, "acc_absent_within")
    if pair is None:
        return
    change = _change(*pair, record.num_samples.get("absent", 0))
    if change < 0:
        yield (
            f"The order among the absent classes was damaged: U/U went {_moved(*pair)}. No γ mends that; "
            "less fine-tuning, or a calibrator that moves weights back or learns from unlabelled images, may."
        )
    else:
        verdict = "was kept" if change == 0 else "got better"
        yield f"The order among the absent classes {verdict}: U/U went {_moved(*pair)}."


def _scale(record: RunRecord, source: StageRecord) -> Iterator[str]:
    fine_tuned = record.stages.fine_tuned
    for group in ("absent", "seen"):
        before, after = (stage.metrics.get(f"logit_gap_on_{group}") for stage in (source, fine_tuned))
        if before is None or after is None:
            continue
        verb = "grew by" if after >= before else "shrank by"
        yield (
            f"The scale of the logits moved: on images of {group} classes the mean gap between seen and "
            f"absent columns {verb} {abs(after - before):.1f} logits "
            f"({decimal(before, 1)} → {decimal(after, 1)})."
        )
        return


def _recovered(record: RunRecord) -> Iterator[str]:
    calibrated, name = record.stages.calibrated, METRICS[record.criterion]
    start = record.stages.fine_tuned.metrics.get(record.criterion)
    best = calibrated["oracle"].metrics.get(record.criterion) if "oracle" in calibrated else None
    if start is None or best is None:
        return
    gain = best - start
    if gain < _LEAST_GAIN:
        yield f"No γ gains more than {100 * max(gain, 0.0):.1f} points of {name}: nothing to calibrate."
        return
    shares = {
        stage_title(key, stage): 100 * (value - start) / gain
        for key, stage in calibrated.items()
        if stage.lane != "oracle" and (value := stage.metrics.get(record.criterion)) is not None
    }
    told = "; ".join(f"{title} {decimal(share, 0)} %" for title, share in shares.items())
    recovered = f" Of that recover: {told}." if told else ""
    beyond = " A calibrator that moves weights may pass 100 %." * any(s > 100 for s in shares.values())
    yield (
        f"The best γ by test labels (oracle, a bound) gains {100 * gain:.1f} points of {name}."
        f"{recovered}{beyond}"
    )


def _payers(record: RunRecord) -> Iterator[str]:
    stages = record.stages.calibrated
    names = [name for name, stage in stages.items() if stage.lane != "oracle"]
    if not names:
        return
    name = record.deployed if record.deployed in names else names[0]
    title = stage_title(name, stages[name])
    seen, absent = (_pair(record.stages.fine_tuned, stages[name], m) for m in ("acc_seen", "acc_absent"))
    if seen is None or absent is None:
        return
    paid, gained = 100 * (seen[0] - seen[1]), 100 * (absent[1] - absent[0])
    line = (
        f"With {title}, absent classes gain {decimal(gained, 1)} points (U/Y) and seen ones pay "
        f"{decimal(paid, 1)} points (S/Y)"
    )
    found = record.per_class
    if found is not None and name in found.calibrated:
        losses = [b - a for b, a in zip(found.fine_tuned, found.calibrated[name], strict=True)]
        worst = max(range(len(losses)), key=losses.__getitem__)
        if losses[worst] > 0:
            before, after = found.fine_tuned[worst], found.calibrated[name][worst]
            line += f"; the class {found.names[worst]} pays most, {100 * before:.1f} → {100 * after:.1f} %"
    yield f"{line}."


def _pair(before: StageRecord, after: StageRecord, metric: str) -> tuple[float, float] | None:
    first, second = before.metrics.get(metric), after.metrics.get(metric)
    return None if first is None or second is None else (first, second)


def _change(before: float, after: float, count: int) -> int:
    """1 for better, −1 for worse, 0 for what two samples of this size may differ by."""
    error = ((before * (1 - before) + after * (1 - after)) / max(count, 1)) ** 0.5
    return 0 if abs(after - before) <= 2 * error else (1 if after > before else -1)


def _moved(before: float, after: float) -> str:
    return f"from {100 * before:.1f} to {100 * after:.1f} %"
