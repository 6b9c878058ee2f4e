"""Groups and scores of runs, recomputed by hand from records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftc import ClassPartition, InputError
from ftc.config.reports import ReportConfig
from ftc.results import RunRecord, StageRecord, StageRecords, versions
from ftc.runs.finished import FinishedRun
from ftc.runs.groups import grouped, told_apart
from ftc.runs.scores import rows_of, score_tables


def stage(score: float | None, lane: str | None = None, title: str = "", **more: Any) -> StageRecord:
    return StageRecord(gamma=1.5, uses=("x",), lane=lane, title=title, acc_all=score, **more)


def run(scores: tuple[float, ...], seen: int = 0, seed: int = 0, method: str = "full", **config: Any):
    """A run with these Y/Y of source, fine-tuned and calibrated model; its oracle is ahead of all."""
    source, fine_tuned, calibrated = scores
    record = RunRecord(
        experiment="digits",
        method=method,
        seed=seed,
        partition=ClassPartition(4, [seen], [3]).record(),
        versions=versions(),
        timing={},
        num_samples={},
        deployed=None,
        stages=StageRecords(
            source=stage(source),
            fine_tuned=stage(fine_tuned),
            calibrated={
                "mine": stage(calibrated, "seen_only", "mine"),
                "theirs": stage(calibrated - 0.1, "unlabelled", "theirs"),
                "oracle": stage(0.99, "oracle", "oracle"),
            },
        ),
    )
    content = {"name": "digits", "seed": seed, "partition": {"seed": seen}, "run_dir": str(scores), **config}
    return FinishedRun(Path("runs", str(scores)), record, content)


def config(**changes: Any) -> ReportConfig:
    content = {
        "runs": ["."],
        "view": "scores",
        "to": None,
        "by": [],
        "metrics": ["acc_all", "acc_seen"],
        "stages": [],
        "baseline": {"stage": "fine_tuned"},
        "replicates": 200,
        "confidence": 0.9,
        "figures": [],
        "page": False,
        "thumbnails": False,
        "chosen_on": [],
        "scores": False,
        "refit": False,
        "shifts": [],
        "allow_targets": [],
    }
    return ReportConfig(**{**content, **changes})


def lr(value: float) -> dict[str, Any]:
    return {"optimizer": {"lr": value, "betas": [value, 1]}}


# Two learning rates, two partitions, and one partition twice with another training seed.
RUNS = [
    *(run((0.5, 0.6, 0.7), 0, 0, **lr(0.01)), run((0.5, 0.4, 0.9), 0, 1, **lr(0.01))),
    *(run((0.3, 0.3, 0.5), 1, 0, **lr(0.01)), run((0.5, 0.7, 0.8), 0, 0, **lr(0.002))),
    run((0.3, 0.5, 0.6), 1, 0, **lr(0.002)),
]


def texts(grid) -> dict[tuple[str, ...], list[str]]:
    return {
        tuple(c.text for c in row[: grid.labels]): [c.text for c in row[grid.labels :]] for row in grid.rows
    }


def test_groups_are_by_what_differs_but_for_seeds_and_what_follows_from_another_key():
    groups = grouped(RUNS)
    assert [(group.values, len(group.runs)) for group in groups] == [
        ({"optimizer.lr": "0.002"}, 2),
        ({"optimizer.lr": "0.01"}, 3),
    ]
    other = run((0.1, 0.1, 0.1), method="other", method_options=3)
    assert [group.values for group in grouped([*RUNS, other])][-1] == {"method": "other", "optimizer.lr": "–"}
    assert [group.values for group in grouped(RUNS[:2])] == [{}]
    assert len(grouped(RUNS, ["partition.seed"])) == 2
    with pytest.raises(InputError, match=r"by=optimizer.rate: no run's config.yaml has a value of it"):
        grouped(RUNS, ["optimizer.rate"])


def test_means_are_over_partitions_and_the_best_is_no_oracle():
    seen_only, _, unlabelled, *_ = score_tables(grouped(RUNS), config())
    assert seen_only.header == ("lr", "model", "Y/Y", "γ", "runs")
    found = texts(seen_only)
    # Partition 0 has 0.7 and 0.9, partition 1 has 0.5.
    assert found["0.01", "+ mine"] == ["65.0 ± 21.2", "1.50 ± 0.00", "3 (2)"]
    assert found["0.002", "+ oracle"][0] == "99.0 ± 0.0"
    assert found["0.01", "fine-tuned"][1] == "–"
    bold = [row[1].text for row in seen_only.rows if any(cell.best for cell in row)]
    assert bold == ["+ mine"]
    assert ("0.01", "+ theirs") in texts(unlabelled) and ("0.01", "+ mine") not in texts(unlabelled)
    (numbers,) = (
        r for r in seen_only.tidy() if (r["lr"], r["model"], r["column"]) == ("0.01", "+ mine", "Y/Y")
    )
    assert numbers["mean"] == pytest.approx(65.0) and numbers["seed_std"] == pytest.approx(2**0.5 * 10)
    assert (numbers["partitions"], numbers["runs"], numbers["ddof"]) == (2, 3, 1)


def test_differences_are_paired_by_partition_and_seed():
    *_, differences, _ = score_tables(grouped(RUNS), config(baseline={"optimizer.lr": 0.002}))
    found = texts(differences)
    assert {key[0] for key in found} == {"0.01"}
    # Partition 0, seed 0: −10 points; partition 1: −20.
    assert found["0.01", "fine-tuned"] == ["−15.0 ± 5.0 (0.5)"]
    *_, of_stage, _ = score_tables(grouped(RUNS), config())
    # Partition 0: 10 and 50 points; partition 1: 20.
    assert texts(of_stage)["0.01", "+ mine"] == ["+25.0 ± 5.0 (0.5)"]
    assert ("0.01", "fine-tuned") not in texts(of_stage)


def test_intervals_are_of_means_or_of_a_single_run():
    _, intervals, *_ = score_tables(grouped(RUNS), config())
    assert texts(intervals)["0.002", "+ mine"] == ["60.0 to 80.0"]
    single = run((0.5, 0.6, 0.7))
    mine = stage(0.7, "seen_only", "mine", intervals={"acc_all": (0.61, 0.79)})
    stages = single.record.stages.model_copy(update={"calibrated": {"mine": mine}})
    single = FinishedRun(single.folder, single.record.model_copy(update={"stages": stages}), single.config)
    _, intervals, *_ = score_tables(grouped([single]), config())
    assert texts(intervals)["+ mine",] == ["61.0 to 79.0"]
    assert len(list(score_tables(grouped([run((0.5, 0.6, 0.7))]), config(baseline={})))) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ["alg"]}, r"stages=\[alg\]: no run has it; choose from fine_tuned, mine, oracle"),
        (
            {"baseline": {"optimizer.lr": 3}},
            r"baseline={optimizer.lr: 3}: no row has it; choose from 0.002, 0",
        ),
        (
            {"baseline": {"lr": 3}},
            r"baseline={lr: 3}: runs do not differ in lr; choose from optimizer.lr, st",
        ),
    ],
)
def test_what_no_run_has_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        list(score_tables(grouped(RUNS), config(**changes)))


def test_models_that_were_trained_on_absent_classes_are_bounds():
    rows = rows_of(grouped([run((0.5, 0.6, 0.7), method="oracle: trained on all classes")]))
    assert [row.bound for row in rows] == [False, True, True, True, True]


def test_runs_are_told_apart_by_values_and_seeds():
    assert told_apart(RUNS[:4]) == [
        {"optimizer.lr": "0.01", "seed": "0", "partition.seed": "0"},
        {"optimizer.lr": "0.01", "seed": "1", "partition.seed": "0"},
        {"optimizer.lr": "0.01", "seed": "0", "partition.seed": "1"},
        {"optimizer.lr": "0.002", "seed": "0", "partition.seed": "0"},
    ]
    assert told_apart(RUNS[:1]) == [{}]
