"""Records survive their file; tables and figures cope with numbers that do not apply."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from ftc import ClassPartition, InputError
from ftc.reporting.figures import write_figures
from ftc.reporting.tables import results_table
from ftc.results import RunRecord, StageRecord, nullable


def record(absent_evaluated: bool = True) -> RunRecord:
    absent = 0.25 if absent_evaluated else math.nan
    metrics = nullable({"acc_all": 0.5, "acc_seen": 0.75, "acc_absent": absent, "ausuc": absent})
    curve = {
        "gamma": [-1.0, 1.0],
        "acc_seen": [0.75, 0.0],
        "acc_absent": [0.0, 0.25] if absent_evaluated else [None, None],
        "acc_all": [0.4, 0.5],
    }
    calibrated = {"mine": StageRecord(1.5, ("seen train",), metrics)}
    if absent_evaluated:
        calibrated = {"oracle": StageRecord(2.0, ("test labels",), metrics), **calibrated}
    return RunRecord(
        experiment="toy",
        seed=3,
        partition=ClassPartition(12, range(11), [11]).to_dict(),
        versions={"python": "3"},
        timing={"fine_tune": 1.0},
        source=StageRecord(0.0, ("pre-training",), metrics, curve),
        fine_tuned=StageRecord(0.0, ("seen train",), metrics, curve),
        calibrated=calibrated,
        deployed="mine",
        num_samples={"seen": 1200, "absent": 40 if absent_evaluated else 0, "others": 0},
    )


def printed(content: RunRecord) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(results_table(content))
    return console.export_text()


@pytest.mark.parametrize("absent_evaluated", [True, False])
def test_record_survives_its_file(tmp_path, absent_evaluated):
    content = record(absent_evaluated)
    content.write(tmp_path)
    assert RunRecord.read(tmp_path).to_json() == content.to_json()
    stage = json.loads((tmp_path / "results.json").read_text())["stages"]["source"]
    assert stage["acc_absent"] == (0.25 if absent_evaluated else None)


def test_table_puts_the_oracle_last_and_marks_the_deployed():
    text = printed(record())
    assert text.index("+ mine *") < text.index("+ oracle")
    assert "1,200 seen + 40 absent" in text
    assert "seen classes (11), absent 11" in text


def test_table_leaves_out_what_does_not_apply():
    text = printed(record(absent_evaluated=False))
    assert "–" in text
    assert "nan" not in text
    assert "oracle │" not in text


def test_figures_are_drawn_without_absent_samples(tmp_path):
    rows = [{"epoch": -1.0, "acc_all": 0.5, "acc_seen": 0.7}, {"epoch": 0.0, "acc_all": 0.6, "acc_seen": 0.8}]
    paths = write_figures(tmp_path, record(absent_evaluated=False), rows)
    assert sorted(p.name for p in paths) == sorted(p.name for p in tmp_path.iterdir())
    assert all(path.stat().st_size > 5_000 for path in paths)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": 99}', "schema 99, this version reads 1"),
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
