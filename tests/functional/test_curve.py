"""The exact curve against brute force: argmax of shifted logits, recomputed for every γ."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftc import ClassPartition, InputError
from ftc.functional import Outcomes, partition_accuracy, reduce_logits, seen_absent_curve
from ftc.functional.accuracy import CRITERIA
from ftc.functional.outcomes import routes


@st.composite
def cases(draw):
    """Small heads with ties within and between groups, other columns, and groups without samples."""
    num_classes = draw(st.integers(2, 7))
    groups = [draw(st.sampled_from(["seen", "absent", "others"])) for _ in range(num_classes)]
    groups[draw(st.integers(0, num_classes - 1))] = "seen"
    ids = {name: [c for c, g in enumerate(groups) if g == name] for name in ("seen", "absent")}
    partition = ClassPartition(num_classes, ids["seen"], ids["absent"])
    size = draw(st.integers(1, 12))
    # Quarters of small integers: differences are exact, ties are frequent.
    values = st.integers(-6, 6).map(lambda v: v / 4)
    logits = draw(
        st.lists(st.lists(values, min_size=num_classes, max_size=num_classes), min_size=size, max_size=size)
    )
    target = draw(st.lists(st.integers(0, num_classes - 1), min_size=size, max_size=size))
    return partition, np.array(logits, dtype=np.float32), np.array(target)


def ranking(row: np.ndarray, partition: ClassPartition, gamma: float) -> list[int]:
    """Columns from best to worst at γ; ties to the fixed group, then to the lowest column."""
    absent = set(partition.absent)
    return sorted(
        range(len(row)), key=lambda c: (-(float(row[c]) + (gamma if c in absent else 0.0)), c in absent, c)
    )


def brute_accuracy(partition, logits, target, gamma, k=1, average="sample"):
    correct = np.array(
        [y in ranking(row, partition, gamma)[:k] for row, y in zip(logits, target, strict=True)]
    )

    def mean(keep: np.ndarray) -> float:
        if not keep.any():
            return math.nan
        if average == "sample":
            return float(np.mean(correct[keep]))
        return float(np.mean([np.mean(correct[keep & (target == c)]) for c in np.unique(target[keep])]))

    seen, absent = np.isin(target, partition.seen), np.isin(target, partition.absent)
    return {"acc_all": mean(np.full(len(target), True)), "acc_seen": mean(seen), "acc_absent": mean(absent)}


def equal(a: Outcomes, b: Outcomes) -> bool:
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for name in ("margin", "threshold", "within", "target")
    )


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, abs_tol=1e-12)


@settings(max_examples=1000)
@given(cases(), st.sampled_from(["sample", "class"]))
def test_every_point_equals_brute_force(case, average):
    partition, logits, target = case
    curve = seen_absent_curve(logits, target, partition, average)
    for i, gamma in enumerate(curve.gamma.tolist()):
        expected = brute_accuracy(partition, logits, target, gamma, average=average)
        for name, value in expected.items():
            assert same(float(getattr(curve, name)[i]), value), (name, gamma)


@settings(max_examples=1000)
@given(
    cases(),
    st.integers(-16, 16).map(lambda v: v / 4),
    st.integers(1, 4),
    st.sampled_from(["sample", "class"]),
)
def test_accuracies_at_any_gamma_equal_brute_force(case, gamma, k, average):
    partition, logits, target = case
    expected = brute_accuracy(partition, logits, target, gamma, k, average)
    found = partition_accuracy(logits, target, partition, gamma, (1, k), average)
    suffix = "" if k == 1 else f"_top{k}"
    for name, value in expected.items():
        assert same(found[name + suffix], value), name
    if k == 1 and average == "sample":
        at = seen_absent_curve(logits, target, partition).at(gamma)
        assert all(same(at[name], value) for name, value in expected.items())


@settings(max_examples=500)
@given(cases(), st.integers(1, 3))
def test_within_group_accuracies_equal_brute_force(case, k):
    partition, logits, target = case
    found = partition_accuracy(logits, target, partition, top_k=(1, k))
    for group in ("seen", "absent"):
        ids = partition.columns(group)
        rows = np.isin(target, ids)
        hits = [
            y in sorted(ids, key=lambda c, row=row: (-row[c], c))[:k]
            for row, y in zip(logits[rows], target[rows], strict=True)
        ]
        expected = float(np.mean(hits)) if hits else math.nan
        assert same(found[f"acc_{group}_within" + ("" if k == 1 else f"_top{k}")], expected)


@settings(max_examples=500)
@given(cases())
def test_area_best_and_shape(case):
    partition, logits, target = case
    curve = seen_absent_curve(logits, target, partition)
    gammas = curve.gamma.tolist()
    assert gammas == sorted(set(gammas))
    # No γ in between or beyond reaches anything the curve does not list.
    margins = sorted(set(curve.margin.tolist()))
    assert len(gammas) == len(margins) + 1
    assert all(
        lo < g <= hi for lo, g, hi in zip([-math.inf, *margins], gammas, [*margins, math.inf], strict=True)
    )
    scores = [brute_accuracy(partition, logits, target, g)["acc_all"] for g in gammas]
    best = max(scores)
    smallest = min((abs(g) for g, s in zip(gammas, scores, strict=True) if same(s, best)))
    assert abs(curve.best("acc_all")) == smallest
    points = [brute_accuracy(partition, logits, target, g) for g in gammas]
    absent, seen = torch.tensor(
        [(p["acc_absent"], p["acc_seen"]) for p in points[::-1]], dtype=torch.float64
    ).T
    area = float(torch.trapezoid(absent, seen))
    if partition.absent:
        assert same(curve.ausuc, area)
    else:
        assert math.isnan(curve.ausuc)


@settings(max_examples=300)
@given(cases(), st.integers(0, 4).map(lambda v: v / 4))
def test_best_above_a_floor_equals_brute_force(case, floor):
    partition, logits, target = case
    curve = seen_absent_curve(logits, target, partition)
    points = [(g, brute_accuracy(partition, logits, target, g)) for g in curve.gamma.tolist()]
    admitted = [(g, a["acc_all"]) for g, a in points if a["acc_absent"] >= floor]
    pool = admitted or [(g, a["acc_all"]) for g, a in points]
    best = max(score for _, score in pool)
    smallest = min(abs(g) for g, score in pool if same(score, best))
    assert abs(curve.best(absent_floor=floor)) == smallest


@settings(max_examples=300)
@given(cases(), st.integers(1, 20), st.sampled_from([(1,), (1, 3), (1, 2, 9)]))
def test_blocks_of_any_size_reduce_as_single_rows(case, block, top_k):
    partition, logits, target = case
    single = [
        reduce_logits(logits[i : i + 1], target[i : i + 1], partition, top_k) for i in range(len(target))
    ]
    columns = zip(*((o.margin, o.threshold, o.within, o.target) for o in single), strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ftc.functional.outcomes.BLOCK", block)
        whole = reduce_logits(logits, target, partition, top_k)
        margin, top_absent = routes(logits, partition)
    assert torch.equal(margin, whole.margin)
    if partition.absent:
        absent = list(partition.absent)
        assert top_absent.tolist() == [absent[int(np.argmax(row[absent]))] for row in logits]
    assert equal(whole, Outcomes(*map(torch.cat, columns), top_k))
    first = reduce_logits(logits, target, partition)
    assert torch.equal(first.threshold[:, 0], whole.threshold[:, 0])
    assert torch.equal(first.within[:, 0], whole.within[:, 0])


def test_end_points_are_the_single_group_accuracies(partition):
    logits = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    target = torch.arange(300) % 6
    curve = seen_absent_curve(logits, target, partition)
    seen, fixed = torch.isin(target, torch.tensor(partition.seen)), torch.tensor(partition.fixed)
    expected = (fixed[logits[seen][:, fixed].argmax(1)] == target[seen]).double().mean()
    assert float(curve.acc_seen[0]) == pytest.approx(float(expected))
    assert float(curve.acc_absent[0]) == 0
    within = partition_accuracy(logits, target, partition)["acc_absent_within"]
    assert float(curve.acc_absent[-1]) == pytest.approx(within)
    assert float(curve.acc_seen[-1]) == 0


def test_gamma_between_neighbouring_floats_belongs_to_its_step():
    p = ClassPartition(2, [0], [1])
    low = 1.0
    high = math.nextafter(low, 2)
    logits = torch.tensor([[low, 0.0], [high, 0.0]], dtype=torch.float64)
    curve = seen_absent_curve(logits, [1, 0], p)
    assert curve.gamma[1] == high
    assert curve.acc_all.tolist() == [0.5, 1.0, 0.5]
    assert curve.at(float(curve.gamma[1]))["acc_all"] == 1.0


def brute_scores(rates: dict[str, float]) -> dict[str, float]:
    """The criteria of plain numbers."""
    seen, absent = rates["acc_seen"], rates["acc_absent"]
    # A missing group has nan, which is true.
    harmonic = 2 / (1 / seen + 1 / absent) if seen and absent else 0.0 * seen * absent
    return {"acc_all": rates["acc_all"], "harmonic": harmonic, "balanced": (seen + absent) / 2}


@settings(max_examples=80)
@given(cases(), st.sampled_from(["sample", "class"]))
def test_criteria_choose_their_own_optimum(case, average):
    partition, logits, target = case
    curve = seen_absent_curve(logits, target, partition, average)
    points = [
        brute_scores(brute_accuracy(partition, logits, target, gamma, average=average))
        for gamma in curve.gamma.tolist()
    ]
    for criterion in CRITERIA:
        best = max(point[criterion] for point in points)
        if math.isnan(best):
            with pytest.raises(InputError, match="needs both seen and absent"):
                curve.best(criterion)
            continue
        gamma = curve.best(criterion)
        assert same(curve.at(gamma)[criterion], best)
        found = partition_accuracy(logits, target, partition, gamma, average=average)
        assert all(same(found[name], curve.at(gamma)[name]) for name in CRITERIA)
    with pytest.raises(InputError, match="choose from acc_all, harmonic, balanced"):
        curve.best("median")


def test_missing_group_gives_nan_not_an_error(partition):
    logits = torch.randn(10, 6)
    curve = seen_absent_curve(logits, torch.zeros(10, dtype=torch.long), partition)
    assert curve.acc_absent.isnan().all()
    assert math.isnan(curve.ausuc)
    assert math.isfinite(curve.best("acc_all"))
    with pytest.raises(InputError, match="needs both seen and absent"):
        curve.best("harmonic")


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (torch.tensor([[0.0] * 6, [math.nan] * 6]), [0, 1], "logits of row 1 are not finite"),
        (torch.tensor([[math.inf] + [0.0] * 5]), [0], "logits of row 0 are not finite"),
        (torch.zeros(2, 6), [0, 6], "label 6 of row 1 is outside the head of 6 columns"),
        (torch.zeros(2, 6), [-1, 0], "label -1 of row 0"),
        (torch.zeros(0, 6), [], "logits are empty"),
        (torch.zeros(2, 5), [0, 1], "the partition asks for (N, 6)"),
        (torch.zeros(2, 6), [0], "give one integer column id a sample"),
        (torch.zeros(2, 6), [0.0, 1.0], "give one integer column id a sample"),
        (torch.zeros(2, 6, dtype=torch.long), [0, 1], "give floating-point logits"),
    ],
)
def test_bad_input_is_named(partition, logits, target, message):
    with pytest.raises(InputError, match=re.escape(message)):
        seen_absent_curve(logits, target, partition)


def read_only(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values


@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.bfloat16,
        torch.Tensor.half,
        torch.Tensor.double,
        lambda z: z.t().contiguous().t(),
        lambda z: z.clone().requires_grad_(),
        lambda z: z.numpy().astype(np.float16),
        lambda z: z.numpy().astype(np.float64),
        lambda z: read_only(z.numpy().copy()),
    ],
)
@pytest.mark.parametrize("top_k", [(1,), (1, 3)])
def test_logits_of_any_kind_are_reduced_in_float64(partition, convert, top_k):
    logits = convert(torch.randn(50, 6, generator=torch.Generator().manual_seed(0)))
    target = read_only(np.arange(50) % 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = reduce_logits(logits, target, partition, top_k)
        reference = reduce_logits(torch.as_tensor(np.array(logits.tolist())), target, partition, top_k)
    assert found.margin.dtype == found.threshold.dtype == torch.float64
    assert equal(found, reference)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("top_k", [(1,), (1, 5)])
def test_a_late_row_that_is_not_finite_is_named(partition, monkeypatch, value, top_k):
    monkeypatch.setattr("ftc.functional.outcomes.BLOCK", 64)
    logits = torch.randn(500, 6)
    logits[[433, 490], [5, 0]] = value
    for reduce in (
        lambda: reduce_logits(logits, torch.arange(500) % 6, partition, top_k),
        lambda: routes(logits, partition),
    ):
        with pytest.raises(InputError, match="logits of row 433 are not finite"):
            reduce()


def test_huge_finite_logits_are_numbers_like_others(partition):
    small = torch.randint(-3, 4, (200, 6), generator=torch.Generator().manual_seed(0)).float()
    target = torch.arange(200) % 6
    scaled = seen_absent_curve(small, target, partition)
    curve = seen_absent_curve(small * 2.0**126, target, partition)
    assert torch.equal(curve.acc_all, scaled.acc_all)
    assert curve.ausuc == scaled.ausuc
    assert [curve.at(g)["acc_all"] for g in curve.gamma.tolist()] == curve.acc_all.tolist()


def test_samples_are_counted_by_group_of_their_label(partition):
    curve = seen_absent_curve(torch.randn(7, 6), [0, 2, 2, 3, 3, 3, 5], partition)
    assert curve.num_samples == {"seen": 3, "absent": 1, "others": 3}


def test_thinning_keeps_the_ends_and_is_for_drawing(partition):
    logits = torch.randn(500, 6, generator=torch.Generator().manual_seed(2))
    curve = seen_absent_curve(logits, torch.arange(500) % 6, partition)
    thin = curve.thin(50)
    assert len(thin.gamma) == 50
    assert thin.gamma[0] == curve.gamma[0]
    assert thin.gamma[-1] == curve.gamma[-1]
