"""Records survive their file; tables and figures cope with numbers that do not apply."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from ftc import ClassPartition, InputError
from ftc.reporting.figures import (
    accuracies_over_epochs,
    logit_scales_over_epochs,
    reliability,
    seen_absent_curve,
    write_figures,
)
from ftc.reporting.tables import probability_tables, results_tables, sweep_table
from ftc.results import RunRecord, nullable


def record(absent_evaluated: bool = True, **changes) -> RunRecord:
    absent = 0.25 if absent_evaluated else math.nan
    metrics = nullable({"acc_all": 0.5, "acc_seen": 0.75, "acc_absent": absent, "ausuc": absent})
    curve = {
        "gamma": [-1.0, 1.0],
        "acc_seen": [0.75, 0.0],
        "acc_absent": [0.0, 0.25] if absent_evaluated else [None, None],
        "acc_all": [0.4, 0.5],
    }
    calibrated = {
        "prior_matched": stage("prior-matched", 0.5, "unlabelled val", metrics, lane="unlabelled")
        | {"details": {"absent_share": 0.4}},
        "mine": stage("mine", 1.5, "seen train", metrics, lane="seen_only"),
    }
    if absent_evaluated:
        calibrated = {"oracle": stage("oracle", 2.0, "test labels", metrics, lane="oracle"), **calibrated}
    stages = {
        "source": stage("", 0.0, "pre-training", metrics, curve=curve),
        "fine_tuned": stage("", 0.0, "seen train", metrics, curve=curve),
        "calibrated": calibrated,
    }
    content = {
        "experiment": "toy",
        "seed": 3,
        "partition": ClassPartition(12, range(11), [11]).record(),
        "versions": {"python": "3"},
        "timing": {"fine_tune": 1.0},
        "deployed": "mine",
        "num_samples": {"seen": 1200, "absent": 40 if absent_evaluated else 0, "others": 0},
        "feature_drift": {"feature_cosine_on_seen": 0.9, "feature_cosine_on_absent": None},
    }
    of_stages = {name: changes.pop(name) for name in list(changes) if name in stages}
    return RunRecord(**{**content, **changes, "stages": {**stages, **of_stages}})


def stage(title, gamma, used, metrics, **fields) -> dict:
    return {"title": title, "gamma": gamma, "uses": (used,), **metrics, **fields}


def with_probabilities(content: RunRecord, absent_evaluated: bool = True) -> RunRecord:
    """The record with probabilities of every stage, and temperatures of the calibrated ones."""
    groups = ("all", "seen", "absent") if absent_evaluated else ("all", "seen")
    names = [
        f"{name}_{group}" for name in ("nll", "brier", "ece", "confidence") for group in ("seen", "absent")
    ]
    metrics = {name: 0.25 if name.split("_")[1] in groups else None for name in names}
    metrics |= {f"{name}_all": 0.25 for name in ("nll", "brier", "ece", "confidence", "classwise_ece")}
    bins = {"confidence": [0.4, 0.8], "accuracy": [0.25, 0.5], "num_samples": 40}
    measured = {"metrics": metrics, "reliability": dict.fromkeys(groups, bins)}
    temperatures = {
        key: {"temperature": t, "uses": ("seen val",), **measured}
        for key, t in (("held_out", 1.25), ("pool", 2.5))
    }
    found = {
        name: {**measured, "temperatures": temperatures if stage.lane else {}}
        for name, stage in content.rows()
    }
    return RunRecord(**{**content.model_dump(), "probabilities": found})


def with_intervals(content: RunRecord) -> RunRecord:
    """The record with intervals of γ = 0 and of one calibrator."""
    bounds = {"acc_all": [0.4, 0.6], "acc_absent": [None, None]}
    stages = content.stages.model_dump()
    stages["calibrated"]["mine"]["intervals"] = {**bounds, "gamma": [1.25, 1.75]}
    stages["fine_tuned"]["intervals"] = bounds
    return RunRecord(**{**content.model_dump(), "stages": stages})


def printed(content: RunRecord, tables=results_tables) -> list[str]:
    """The text of every table."""
    texts = []
    for table in tables(content):
        console = Console(width=160, record=True, file=io.StringIO())
        console.print(table)
        texts.append(console.export_text())
    return texts


@pytest.mark.parametrize("absent_evaluated", [True, False])
def test_record_survives_its_file(tmp_path, absent_evaluated):
    content = record(absent_evaluated)
    content.write(tmp_path)
    assert RunRecord.read(tmp_path) == content
    stage = json.loads((tmp_path / "results.json").read_text())["stages"]["source"]
    assert stage["acc_absent"] == (0.25 if absent_evaluated else None)


def test_record_without_source_and_with_intervals_survives_its_file(tmp_path):
    content = with_intervals(record(source=None, seed=None, deployed=None))
    content.write(tmp_path)
    found = RunRecord.read(tmp_path)
    assert found == content
    assert found.stages.source is None
    assert found.stages.calibrated["mine"].intervals["gamma"] == (1.25, 1.75)
    assert found.stages.calibrated["prior_matched"].details == {"absent_share": 0.4}


def test_rows_and_scalars_put_lanes_in_order():
    content = record()
    assert [name for name, _ in content.rows()] == [
        "source",
        "fine_tuned",
        "mine",
        "prior_matched",
        "oracle",
    ]
    assert set(content.lane("unlabelled")) == {"prior_matched"}
    scalars = content.scalars()
    assert scalars["mine/gamma"] == 1.5
    assert scalars["source/ausuc"] == 0.25
    assert "mine/ausuc" not in scalars


def test_a_table_a_lane_with_the_oracle_last_and_the_deployed_marked():
    seen_only, unlabelled = printed(record())
    assert seen_only.index("+ mine *") < seen_only.index("+ oracle")
    assert "calibrated on labelled seen target images" in seen_only
    assert "1,200 seen + 40 absent" in seen_only
    assert "seen columns (11), absent 11" in seen_only
    assert "seed 3" in seen_only
    assert "prior-matched" not in seen_only
    assert unlabelled.index("+ prior-matched") < unlabelled.index("+ oracle")
    assert "calibrated with unlabelled target images" in unlabelled
    assert "mine" not in unlabelled


def test_intervals_follow_the_table_they_belong_to():
    seen_only, intervals, _, others = printed(with_intervals(record(seed=None)))
    assert "seed" not in seen_only
    assert "Bootstrap intervals" in intervals
    line = next(line for line in intervals.splitlines() if "+ mine" in line)
    assert "40.0 to 60.0" in line
    assert "1.25 to 1.75" in line
    assert "–" in line
    assert "mine" not in others


def test_models_without_calibrators_are_one_table():
    (only,) = printed(record(calibrated={}, deployed=None, source=None))
    assert "fine-tuned" in only
    assert "│ source " not in only


def test_table_leaves_out_what_does_not_apply():
    for text in printed(record(absent_evaluated=False)):
        for word in ("nan", "U/Y", "AUSUC", "+ oracle"):
            assert word not in text


def test_figures_of_saved_logits_need_neither_source_nor_epochs(tmp_path):
    paths = write_figures(tmp_path, with_intervals(record(source=None)))
    assert [path.name for path in paths] == ["seen_absent_curve.png"]
    assert paths[0].stat().st_size > 5_000


def test_an_evaluated_checkpoint_is_called_so_everywhere():
    for checkpoint, name in ((None, "fine-tuned"), ("a" * 64, "checkpoint")):
        evaluated = record(checkpoint=checkpoint)
        (legend,) = seen_absent_curve(evaluated).legends
        labels = {text.get_text() for text in legend.get_texts()}
        assert f"{name}, γ = 0" in labels
        assert name in {str(cell) for table in results_tables(evaluated) for cell in table.columns[0].cells}


def test_probabilities_survive_their_file_and_older_records_have_none(tmp_path):
    content = with_probabilities(record())
    content.write(tmp_path)
    assert RunRecord.read(tmp_path) == content
    assert record().probabilities is None
    assert printed(record(), probability_tables) == []


def test_tables_of_probabilities_keep_lanes_apart():
    seen_only, unlabelled = printed(with_probabilities(record()), probability_tables)
    assert "+ mine" in seen_only and "+ prior-matched" not in seen_only
    assert "T on V" in seen_only and "T on pool" not in seen_only
    assert "+ prior-matched" in unlabelled and "+ mine" not in unlabelled
    assert "2.50" in unlabelled and "T on pool" in unlabelled
    # Mean accuracy of the bins beside mean confidence.
    assert "│  25.0 │ 37.5 │" in seen_only
    checkpoint = printed(with_probabilities(record(checkpoint="a" * 64)), probability_tables)
    assert all("checkpoint" in text and "fine-tuned" not in text for text in checkpoint)


@pytest.mark.parametrize("absent_evaluated", [True, False])
def test_reliability_has_a_panel_a_group(absent_evaluated):
    content = with_probabilities(record(absent_evaluated), absent_evaluated)
    figure = reliability(content)
    titles = [axes.get_title().splitlines()[0] for axes in figure.axes]
    assert titles == ["seen classes", *(["absent classes"] if absent_evaluated else []), "all classes"]
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["γ = 0", "mine, γ = 1.5", "the same, T = 1.25 fitted on V"]
    for text in printed(content, probability_tables):
        assert "nan" not in text


def test_figures_are_drawn_without_absent_samples(tmp_path):
    rows = [{"epoch": -1.0, "acc_all": 0.5, "acc_seen": 0.7}, {"epoch": 0.0, "acc_all": 0.6, "acc_seen": 0.8}]
    paths = write_figures(tmp_path, record(absent_evaluated=False), rows)
    assert sorted(p.name for p in paths) == sorted(p.name for p in tmp_path.iterdir())
    assert all(path.stat().st_size > 5_000 for path in paths)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": 1}', "schema 1, this version reads 2; repeat the run"),
        ('{"schema": 99}', "schema 99, this version reads 2"),
        ("[]", "not a results file"),
        ("{", "not a results file"),
        (None, "no such file; is the run finished?"),
    ],
)
def test_foreign_results_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=message):
        RunRecord.read(tmp_path)


def epoch(number: int, absent: bool, names: tuple[str, ...] = ()) -> dict:
    of_absent = ("acc_absent", "logit_ground_truth_on_absent", "logit_gap_on_absent") if absent else ()
    always = ("acc_all", "acc_seen", "acc_seen_within", "logit_gap_on_seen")
    scores = (*always, *of_absent, *(f"{name}/acc_all" for name in names))
    return {"epoch": number, **dict.fromkeys(scores, 0.5)}


def test_figures_over_epochs_say_what_was_validated():
    rows = [epoch(number, absent=False) for number in (-1, 0)]
    left, right = accuracies_over_epochs(record(), rows).axes
    assert [line.get_label() for line in left.lines] == ["S/Y", "S/S"]
    assert right.get_title() == "Seen classes alone, S/Y: what γ takes from them"
    (only,) = logit_scales_over_epochs(record(), rows).axes
    assert [line.get_label() for line in only.lines] == ["on seen samples"]
    rows = [epoch(number, absent=True) for number in (-1, 0)]
    assert accuracies_over_epochs(record(), rows).axes[1].get_title() == "All classes, Y/Y"
    assert len(logit_scales_over_epochs(record(), rows).axes) == 2


def test_no_two_calibrators_look_the_same():
    names = tuple(f"method_{i}" for i in range(12))
    metrics = {"acc_all": 0.5, "acc_seen": 0.75, "acc_absent": 0.25, "ausuc": 0.2}
    calibrated = {name: stage(name, 1.0, "seen train", metrics, lane="seen_only") for name in names}
    rows = [epoch(number, True, names) for number in (-1, 0)]
    lines = accuracies_over_epochs(record(calibrated=calibrated), rows).axes[1].lines
    looks = {(line.get_color(), line.get_linestyle()) for line in lines if line.get_label() in names}
    assert len(looks) == 12


def test_points_of_moved_weights_are_named():
    metrics = {"acc_all": 0.5, "acc_seen": 0.75, "acc_absent": 0.25, "ausuc": 0.2}
    moved = {
        f"at_{alpha}": stage(f"at {alpha}", 1.0, "seen val", metrics, lane="seen_only")
        | {"details": {"alpha": alpha}}
        for alpha in (0.5, 1.0)
    }
    labels = [text.get_text() for text in seen_absent_curve(record(calibrated=moved)).legends[0].texts]
    assert "at 0.5, γ = 1.0, own weights" in labels
    assert "at 1.0, γ = 1.0" in labels


@pytest.mark.parametrize("width", [80, 100, 120, None])
def test_a_sweeps_table_fits_and_keeps_what_matters(width):
    names = ("source", "fine_tuned", *(f"calibrator_{i}" for i in range(9)), "oracle")
    numbers = {f"{name}/acc_all": "0.123" for name in names} | {"fine_tuned/ausuc": "0.456"}
    rows = [
        {"run": f"r{i}", "status": "finished", "error": "", "optimizer.lr": f"0.{i}", **numbers}
        for i in (1, 2)
    ]
    console = Console(width=width or 1_000, record=True, file=io.StringIO())
    console.print(sweep_table(rows, ["optimizer.lr"], None, width))
    text = console.export_text()
    assert "…" not in text
    # Every number is whole, and so are the models and the bound.
    assert text.count("12.3") % 2 == 0 and text.count("45.6") == 2
    for title in ("source", "fine-tuned", "oracle", "AUSUC", "lr", "status"):
        assert title in text
    shown = text.count("calibrator")
    assert (shown == 9) if width is None else (shown < 9)
    assert "All numbers are in sweep.csv" in " ".join(text.split())
