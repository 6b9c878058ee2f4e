"""Figures show what a run has, say what it lacks, and are the same files when drawn again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftc.reporting.figures import (
    ScoreRow,
    accuracies_over_epochs,
    class_shift,
    gains,
    head_updates,
    seen_absent_curve,
    sweep_scores,
    weight_norms_over_epochs,
    write_figures,
)
from ftc.results import RunRecord
from tests.reporting.test_reporting import epoch, record, stage, with_probabilities

NAMES = [f"a class with quite a long name, number {i}" for i in range(12)]


def with_analyses(content: RunRecord, drift: float = 0.5, **updates) -> RunRecord:
    """The record with analyses of 12 classes, of which all but the last are seen."""
    matrix = [[None if i == j else -0.25 for j in range(12)] for i in range(12)]
    head = {"within_seen": 0.5, "within_absent": None, "across": -0.25, "matrix": matrix, "names": NAMES}
    places = [(float(i), float(-i % 5)) for i in range(12)]
    analyses = {
        "head_updates": {**head, "num_seen": 11, "seen_blocks": 11, "block": 1, **updates},
        "class_shift": {
            "columns": list(range(12)),
            "names": NAMES,
            "source": places,
            "fine_tuned": [(x + drift, y) for x, y in places],
            "explained": (0.5, 0.25),
            "drift": [drift] * 12,
            "cosine": [1.0] * 12,
        },
        "cka": {"all": 0.9, "seen": 0.8, "absent": None},
    }
    return RunRecord(**{**content.model_dump(), "analyses": analyses})


def calibrated(points: list[tuple[float, float]]) -> dict:
    scores = [{"acc_all": 0.5, "acc_seen": x, "acc_absent": y, "ausuc": 0.5} for x, y in points]
    return {f"c{i}": stage(f"c{i}", 1.0, "seen train", m, lane="seen_only") for i, m in enumerate(scores)}


def title(figure) -> str:
    return " ".join(figure.get_suptitle().split())


def test_every_format_is_written_and_the_same_again(tmp_path):
    first, again = (
        write_figures(tmp_path / folder, record(source=None), formats=("png", "pdf", "svg"))
        for folder in ("a", "b")
    )
    assert [path.name for path in first] == [f"seen_absent_curve.{kind}" for kind in ("png", "pdf", "svg")]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_a_whole_record_has_every_figure(tmp_path):
    content = with_analyses(with_probabilities(record()))
    rows = [epoch(number, absent=True) | {"head_weight_norm_seen": 1.0} for number in (-1, 0)]
    names = {path.stem for path in write_figures(tmp_path, content, rows)}
    of_head_and_features = {"class_shift", "head_updates", "weight_norms"}
    assert (
        names
        == {"seen_absent_curve", "gains", "reliability", "accuracies", "logit_scales"} | of_head_and_features
    )


def test_an_older_record_has_no_figures_of_analyses(tmp_path):
    names = {path.stem for path in write_figures(tmp_path, record(), [epoch(-1, absent=True)])}
    assert names == {"seen_absent_curve", "gains", "accuracies", "logit_scales"}


def test_gains_say_what_was_not_measured():
    drawn = gains(record(absent_evaluated=False))
    (axes,) = drawn.axes
    label = axes.get_xlabel()
    assert label.startswith("not measured in this run: ")
    assert label.endswith("network, γ = 0: U/Y, S/S, U/U; NCM on features")
    metrics = dict.fromkeys(("acc_all", "acc_seen", "acc_absent", "acc_seen_within"), 0.5)
    metrics |= {"acc_absent_within": 0.25, **{f"ncm_{name}": 0.75 for name in metrics}, "ausuc": 0.5}
    metrics["ncm_acc_absent_within"] = 0.75
    after = {**metrics, "acc_absent": 0.125}
    whole = gains(record(source=stage("", 0, "x", metrics), fine_tuned=stage("", 0, "x", after))).axes[0]
    assert whole.get_xlabel() == ""
    assert len([bar for bar in whole.patches if bar.get_height()]) == 20
    assert {"−37.5", "+0.0"} <= {text.get_text() for text in whole.texts}


def test_crowded_markers_are_shown_larger_beside_everything_else():
    near = [(0.7 + 0.01 * i, 0.7 - 0.01 * i) for i in range(4)]
    (axes, inset) = seen_absent_curve(record(calibrated=calibrated(near))).axes[0], None
    (inset,) = axes.child_axes
    for x, y in near:
        assert inset.get_xlim()[0] < 100 * x < inset.get_xlim()[1]
        assert inset.get_ylim()[0] < 100 * y < inset.get_ylim()[1]
    apart = [(0.1, 0.9), (0.5, 0.5), (0.9, 0.1)]
    fine_tuned = stage("", 0, "x", {"acc_seen": 0.99, "acc_absent": 0.02, "ausuc": 0.5})
    lonely = record(calibrated=calibrated(apart), source=None, fine_tuned=fine_tuned)
    assert not seen_absent_curve(lonely).axes[0].child_axes


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=8))
def test_an_inset_covers_no_marker(points):
    axes = seen_absent_curve(record(calibrated=calibrated(points))).axes[0]
    markers = np.concatenate([collection.get_offsets() for collection in axes.collections])
    for inset in axes.child_axes:
        low = np.array(axes.transData.inverted().transform(inset.bbox.min))
        high = np.array(axes.transData.inverted().transform(inset.bbox.max))
        assert not ((markers > low) & (markers < high)).all(1).any()


def test_head_updates_name_classes_until_there_are_too_many():
    drawn = head_updates(with_analyses(record()))
    axes = drawn.axes[0]
    assert axes.get_xticklabels()[0].get_text() == "a class with quite …"
    assert "mean cosine within S: +0.50, S and U: −0.25" in title(drawn)
    matrix = [[0.5] * 60] * 60
    many = {"names": [str(i) for i in range(120)], "num_seen": 60, "seen_blocks": 30, "block": 2}
    axes = head_updates(with_analyses(record(), matrix=matrix, **many)).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["seen, 60 classes", "absent, 60 classes"]
    assert axes.get_xlabel() == "a cell is the mean over pairs of 2 by 2 classes"


def test_class_shift_says_that_nothing_moved():
    drawn = class_shift(with_analyses(record()))
    assert len(drawn.axes) == 2 and "CKA of both models' features: all 0.90, seen 0.80" in title(drawn)
    (still,) = class_shift(with_analyses(record(), drift=0.0)).axes
    assert still.get_title().endswith("none moved")


def test_accuracies_fill_their_axes():
    rows = [epoch(number, absent=True) for number in (-1, 0)]
    assert accuracies_over_epochs(record(), rows).axes[0].get_ylim() == (40, 60)
    extremes = [{"epoch": 0, "acc_all": 0.0, "acc_seen": 1.0}]
    assert accuracies_over_epochs(record(), extremes).axes[0].get_ylim() == (-2, 102)


def test_weight_norms_without_biases_are_one_panel():
    rows = [{"epoch": number, "head_weight_norm_seen": 1.0} for number in (-1, 0)]
    (only,) = weight_norms_over_epochs(record(), rows).axes
    assert [line.get_label() for line in only.lines] == ["seen classes"]


def score(stage_name: str, mean: float = 0.5, n: int = 3, **values: str) -> ScoreRow:
    return ScoreRow(values, stage_name, stage_name, mean, mean - 0.1, mean + 0.1, n)


def test_numbers_have_an_axis_and_names_have_places():
    wide = sweep_scores([score("a", lr=x) for x in ("0.1", "0.001", "0.01")], "lr", None, "ausuc")
    assert wide.axes[0].get_xscale() == "log" and wide.axes[0].get_ylabel() == "AUSUC (%)"
    assert [text.get_text() for text in wide.axes[0].get_xticklabels()] == ["0.001", "0.01", "0.1"]
    assert "AUSUC by lr markers: means of 3 runs ± a standard deviation" in title(wide)
    narrow = sweep_scores([score("a", lr=x) for x in ("2", "8", "4")], "lr", None, "gap").axes[0]
    assert narrow.get_xscale() == "linear" and narrow.get_ylabel() == "gap"
    names = sweep_scores([score("a", n=1, head=x) for x in ("linear", "1")], "head", None, "ausuc")
    assert [text.get_text() for text in names.axes[0].get_xticklabels()] == ["linear", "1"]
    assert "markers: single runs ±" in title(names)
    long = sweep_scores([score("a", head=x * 15) for x in "abc"], "head", None, "ausuc").axes[0]
    assert [text.get_text()[0] for text in long.get_yticklabels()] == ["a", "b", "c"]
    assert (long.get_xlabel(), long.get_ylabel()) == ("AUSUC (%)", "head")


def test_many_lines_have_a_panel_for_each_value_and_stages_keep_their_looks():
    rows = [score(s, lr=x, opt=o) for s, x, o in itertools.product("ab", ("1", "2"), ("p", "q", "r", "s"))]
    drawn = sweep_scores(rows[1:], "lr", "opt", "ausuc")
    panels = [axes for axes in drawn.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["q", "r", "s", "p"]
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.texts] == ["a", "b"]
    colours = [{line.get_label(): line.get_color() for line in axes.lines} for axes in panels]
    assert len({c["a"] for c in colours if "a" in c}) == len({c["b"] for c in colours}) == 1
    (few,) = sweep_scores(rows[:4], "lr", "opt", "ausuc").legends
    assert [text.get_text() for text in few.texts] == ["p", "q", "r", "s"]


@pytest.mark.parametrize("size", [1, 3])
def test_equal_places_have_their_mean_on_the_line(size):
    rows = [score("a", mean, lr="1", decay=str(i)) for i, mean in enumerate((0.2, 0.4)[:size])]
    axes = sweep_scores(rows, "lr", None, "ausuc").axes[0]
    line = next(line for line in axes.lines if line.get_linestyle() == "-" and line.get_marker() == "None")
    assert list(line.get_ydata()) == pytest.approx([100 * sum(r.mean for r in rows) / len(rows)])
