"""Estimators compared over runs: gaps recomputed by hand."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from ftc.config.reports import CompareConfig
from ftc.functional import curve_of_outcomes, reduce_logits, seen_absent_curve
from ftc.runs.compare import comparison, gap_table, read_runs, scores_table
from ftc.runs.finished import FinishedRun
from ftc.runs.gaps import HALVES, Gap, floor_gaps, recorded_gaps, refitted_gaps
from tests.commands import run_module, run_train
from tests.conftest import composed

SHORT = ("source.max_epochs=2", "trainer.max_epochs=1", "logger=csv", "data.gallery_every=null")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("compare")
    use = "calibration.use=[alg,symmetric,prior_matched]"
    result = run_train(home, "-m", *SHORT, use, "partition.seed=0,1", "hydra.sweep.dir=sweep")
    assert result.returncode == 0, result.stderr
    return home / "sweep"


def test_gap_is_what_an_estimator_leaves_to_the_oracle(sweep):
    runs = read_runs(sweep)
    assert [run.partition_seed for run in runs] == [0, 1]
    for lane, names in (("seen_only", ["alg", "symmetric"]), ("unlabelled", ["prior_matched"])):
        gaps = recorded_gaps(runs, lane)
        assert [gap.estimator for gap in gaps] == 2 * ["fine_tuned", *names]
        for gap in gaps[1 : 1 + len(names)]:
            stages = runs[0].record.stages.calibrated
            expected = stages["oracle"].metrics["acc_all"] - stages[gap.estimator].metrics["acc_all"]
            assert gap.points == pytest.approx(100 * expected)


def test_command_prints_a_table_a_lane_and_refits_from_saved_predictions(sweep):
    result = run_module("compare", sweep.parent, "runs=sweep", "chosen_on=[0]", "refit=true")
    assert result.returncode == 0, result.stderr
    titles = re.findall(r"^### (.*)$", result.stdout, flags=re.MULTILINE)
    assert titles == [
        "Calibrated on labelled seen target images",
        "Calibrated with unlabelled target images",
        "The same with the test images as the pool",
        "Pool of test images, share of absent-class images −0.2",
        "Pool of test images, share of absent-class images +0.2",
    ]
    assert "(`floor`)" in result.stdout
    first, second = result.stdout.split("### ")[1:3]
    assert "`alg`" in first and "`prior_matched`" not in first
    assert "`prior_matched`" in second and "`alg`" not in second
    assert "| estimator | chosen on (1) | reported (1) |\n" in first


@pytest.fixture(scope="module")
def pooled(tmp_path_factory) -> FinishedRun:
    """A run whose pool is the test images."""
    home = tmp_path_factory.mktemp("pooled")
    use = "calibration.use=[interpolated_prototypes,prototypes,expected_accuracy,interpolated_unlabelled]"
    pool = ("calibration=study", "calibration.default=prototypes", "data.readers.pool=${data.readers.test}")
    result = run_train(home, *SHORT, *pool, use, "run_dir=run")
    assert result.returncode == 0, result.stderr
    return FinishedRun.read(home / "run")


@pytest.mark.slow
def test_a_refit_on_the_same_pool_finds_what_the_run_found(pooled):
    recorded = {gap.estimator: gap.points for gap in recorded_gaps([pooled], "unlabelled")}
    refitted = {gap.estimator: gap.points for gap in refitted_gaps([pooled])}
    del recorded["fine_tuned"], refitted["val_oracle"]
    assert len(refitted) == 4
    # An image of a thousand may lie on the edge.
    assert refitted == pytest.approx(recorded, abs=0.1)


@pytest.mark.slow
def test_other_shares_in_the_pool_move_what_assumes_them(pooled):
    shifted = {gap.estimator: gap.points for gap in refitted_gaps([pooled], -0.2)}
    assert len(shifted) == 4
    assert shifted != {gap.estimator: gap.points for gap in refitted_gaps([pooled])}


@pytest.mark.slow
def test_the_floor_is_what_labels_of_one_half_lose_on_the_other(pooled):
    (gap,) = floor_gaps([pooled])
    saved = load_file(pooled.folder / "predictions.safetensors")
    logits, target = saved["fine_tuned/test/logits"], saved["fine_tuned/test/target"]
    lost = []
    for draw in range(HALVES):
        order = torch.randperm(len(target), generator=torch.Generator().manual_seed(draw))
        one, other = order[: len(order) // 2], order[len(order) // 2 :]
        gamma = seen_absent_curve(logits[one], target[one], pooled.partition).best()
        curve = seen_absent_curve(logits[other], target[other], pooled.partition)
        lost.append(100 * (curve.at(curve.best())["acc_all"] - curve.at(gamma)["acc_all"]))
    assert gap.points == pytest.approx(sum(lost) / len(lost))
    assert 0 <= gap.points < 5


def test_scores_are_means_of_the_runs_and_paired_differences(sweep):
    runs = read_runs(sweep)
    lines = scores_table("scores", runs).markdown().splitlines()
    assert lines[0] == "|  | Y/Y | S/Y | U/Y | H | AUSUC | to the oracle | runs ahead |"
    (row,) = (line for line in lines if line.startswith("| ALG |"))
    first, *_, mean, error = re.findall(r"[+−]?\d+\.\d", row)
    stages = [run.record.stages.calibrated for run in runs]
    found, best = ([100 * stage[name].metrics["acc_all"] for stage in stages] for name in ("alg", "oracle"))
    ahead = [of - to for of, to in zip(found, best, strict=True)]
    assert float(first) == pytest.approx(sum(found) / 2, abs=0.051)
    assert float(mean.replace("−", "-")) == pytest.approx(sum(ahead) / 2, abs=0.051)
    assert float(error) == pytest.approx(abs(ahead[0] - ahead[1]) / 2, abs=0.051)
    assert row.endswith(f"| {sum(points > 0 for points in ahead)} |")


def test_gaps_are_by_the_runs_criterion_and_tables_never_mix_two(sweep, tmp_path):
    for run, criterion in zip(read_runs(sweep), ("acc_all", "harmonic"), strict=True):
        folder = tmp_path / criterion
        shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("checkpoints"))
        run.record.model_copy(update={"criterion": criterion}).write(folder)
    (gap, *_) = recorded_gaps([FinishedRun.read(tmp_path / "harmonic")], "seen_only")
    stages = gap.run.record.stages
    expected = stages.calibrated["oracle"].metrics["harmonic"] - stages.fine_tuned.metrics["harmonic"]
    assert gap.points == pytest.approx(100 * expected)
    config = composed(CompareConfig, "compare", f"runs={tmp_path}", "refit=true", "shifts=[]")
    grids = list(comparison(read_runs(tmp_path), config, methods=False))
    tables = [grid.markdown() for grid in grids]
    plain = ["Calibrated on labelled seen target images", "Calibrated with unlabelled target images"]
    plain.append("The same with the test images as the pool")
    assert [grid.title for grid in grids] == [f"{t}{unit}" for unit in ("", ": gaps in H") for t in plain]
    assert all("| reported (1) |" in table for table in tables)
    assert "`prior_matched`" in tables[-1] and "`floor`" in tables[-1]


def copied(run: FinishedRun, folder: Path, checkpoint: str | None = None, average: str = "sample"):
    """The run with two thirds of its test images of class 0 left out, as a run of another kind."""
    folder.mkdir()
    run.record.model_copy(update={"checkpoint": checkpoint}).write(folder)
    config = {**run.config, "calibration": {**run.config["calibration"], "average": average}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    tensors = load_file(run.folder / "predictions.safetensors")
    keep = (tensors["fine_tuned/test/target"] != 0) | (torch.arange(1000) % 3 == 0)
    tensors = {name: value[keep] if "/test/" in name else value for name, value in tensors.items()}
    stage = "fine_tuned" if checkpoint is None else "checkpoint"
    tensors = {name.replace("fine_tuned/", f"{stage}/"): value for name, value in tensors.items()}
    save_file(tensors, folder / "predictions.safetensors")
    return FinishedRun.read(folder)


def test_gaps_are_means_over_what_the_runs_accuracies_are(sweep, tmp_path):
    run = read_runs(sweep)[0]
    by_sample, by_class = (copied(run, tmp_path / name, average=name) for name in ("sample", "class"))
    p, tensors = run.partition, load_file(tmp_path / "class" / "predictions.safetensors")
    test, val = (
        [tensors[f"fine_tuned/{split}/{field}"] for field in ("logits", "target")]
        for split in ("test", "val")
    )
    outcomes, evidence = reduce_logits(*test, p), reduce_logits(*val, p)
    curve, validation = (curve_of_outcomes(o, p, "class") for o in (outcomes, evidence))
    best, reached = (curve.at(one.best("acc_all"))["acc_all"] for one in (curve, validation))
    found = {gap.estimator: gap.points for gap in refitted_gaps([by_class])}
    assert found["val_oracle"] == pytest.approx(100 * (best - reached))
    assert floor_gaps([by_class])[0].points != floor_gaps([by_sample])[0].points


def test_the_floor_is_that_of_evaluated_checkpoints_as_well(sweep, tmp_path):
    run = read_runs(sweep)[0]
    trained, evaluated = copied(run, tmp_path / "one"), copied(run, tmp_path / "other", "0" * 64)
    assert floor_gaps([evaluated])[0].points == floor_gaps([trained])[0].points


def test_halves_are_kept_apart(sweep):
    (run, other) = read_runs(sweep)
    again = FinishedRun(run.folder, run.record, run.config)
    gaps = [Gap("alg", "ALG", *of) for of in ((run, 1.0), (again, 3.0), (other, -4.0))]
    row = gap_table("gaps", gaps, chosen_on=[0]).markdown().splitlines()[-1]
    assert row == "| ALG (`alg`) | 2.00 (3.0) | −4.00 (−4.0) |"


def test_runs_are_grouped_by_any_key_in_which_they_differ(sweep):
    gaps = recorded_gaps(read_runs(sweep), "seen_only")
    head = gap_table("gaps", gaps, (), ("name", "partition.seed", "optimizer.lr")).header
    assert head == ("estimator", "reported (2)", "seed=0 (1)", "seed=1 (1)")
    result = run_module("compare", sweep.parent, "runs=sweep", "by=[partition.sed]")
    assert result.returncode == 2
    assert result.stderr.startswith("ftc: error: by=partition.sed: no run's config.yaml has a value of it")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs=nowhere"], "runs=nowhere: no such folder"),
        (["runs=."], "runs=.: no finished run below it"),
        ([], "runs: missing; give it a value"),
    ],
)
def test_wrong_folders_get_one_line(tmp_path, arguments, message):
    result = run_module("compare", tmp_path, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"ftc: error: {message}")


def test_a_report_of_a_sweep_is_tables_figures_and_a_page(sweep, tmp_path):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").write_text("name: digits\n")
    result = run_module(
        "report", sweep.parent, "sweep", str(tmp_path), f"to={tmp_path}/report", "figures=[svg]"
    )
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "report"
    assert result.stdout == (folder / "tables.md").read_text() + "\n"
    assert f"- {tmp_path}/unfinished: unfinished" in result.stdout
    assert re.match(
        r"<!-- command: python -m ftc.report .*; ftc: .*; runs: 2, sha256 \w{16} -->", result.stdout
    )
    scores = [run.record.stages.calibrated["alg"].metrics["acc_all"] for run in read_runs(sweep)]
    with (folder / "tables.csv").open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("# ")))
    (of_alg,) = (r for r in rows if (r["model"], r["column"], r["std"] != "") == ("+ ALG", "Y/Y", True))
    assert float(of_alg["mean"]) == pytest.approx(50 * sum(scores))
    assert float(of_alg["std"]) == pytest.approx(100 * abs(scores[0] - scores[1]) / 2**0.5)
    table = pq.read_table(folder / "tables.parquet")
    assert table.num_rows == len(rows)
    assert table.schema.metadata[b"ftc.runs"].startswith(b"2, sha256")
    # Bold where it is the best, which is up to torch's version.
    cell = rf"\+ ALG & (\\textbf{{)?{float(of_alg['mean']):.1f} "
    assert re.search(cell, (folder / "tables.tex").read_text())
    assert (folder / "report.html").stat().st_size < 1_000_000
    # One group alone has nothing over which to draw.
    assert not (folder / "figures").exists()


def test_a_report_of_groups_and_of_a_single_run_has_figures(sweep):
    by = ("by=[partition.seed]", "page=false", "figures=[png]", "stages=[source,alg,oracle]", "to=by")
    result = run_module("report", sweep.parent, "sweep", *by)
    assert result.returncode == 0, result.stderr
    assert "| seed | model | Y/Y |" in result.stdout
    assert "| 1 | + ALG |" in result.stdout and "fine-tuned |" not in result.stdout.split("###")[1]
    drawn = {path.name for path in (sweep.parent / "by" / "figures").iterdir()}
    assert drawn == {"acc_all_by_seed.png", "ausuc_by_seed.png"}
    (run, _) = read_runs(sweep)
    assert not (run.folder / "figures").exists()
    single = run_module("report", sweep.parent, str(run.folder), "page=false", "figures=[png,pdf]", "to=one")
    assert single.returncode == 0, single.stderr
    drawn = {path.name for path in (sweep.parent / "one" / "figures").iterdir()}
    assert {"head_updates.pdf", "class_shift.png", "seen_absent_curve.pdf", "weight_norms.png"} <= drawn


def test_comparisons_are_views_of_a_report(sweep):
    view = ("view=estimators", "page=false", "figures=[]", "chosen_on=[0]", "to=view")
    result = run_module("report", sweep.parent, "sweep", *view)
    assert result.returncode == 0, result.stderr
    compared = run_module("compare", sweep.parent, "runs=sweep", "chosen_on=[0]")
    tables = [block for block in compared.stdout.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 2 and all(table in result.stdout for table in tables)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "runs=nowhere: no such folder"),
        (["runs=[nowhere]"], "runs=nowhere: no such folder"),
        (["."], "runs=.: no finished run below it"),
        (["sweep", "metrics=[acc]"], "metrics=[acc]: no such metric; choose from acc_all"),
        (["sweep", "stages=[pcv]"], "stages=[pcv]: no run has it; choose from alg, fine_tuned"),
        (["sweep", "to=sweep/sweep.csv"], "to=sweep/sweep.csv: is a file; name a folder"),
    ],
)
def test_reports_on_nothing_get_one_line_and_write_nothing(sweep, tmp_path, arguments, message):
    home = sweep.parent if "sweep" in arguments else tmp_path
    before = sorted(home.rglob("*"))
    result = run_module("report", home, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"ftc: error: {message}"), result.stderr
    assert sorted(home.rglob("*")) == before
