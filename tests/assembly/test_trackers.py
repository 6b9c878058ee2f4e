"""What trackers get of a run; their environment variables count, and they never stop a training."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wandb
import yaml
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger
from mlflow.tracking import MlflowClient
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from ftc import InputError, errors
from ftc.assembly.loggers import closing, log_record, logger_factories, mlflow_logger, wandb_logger
from ftc.config.commands import TrainConfig
from ftc.reporting.names import COLUMNS
from ftc.results import OBJECTIVES, RunRecord
from tests.commands import run_train
from tests.conftest import composed
from tests.runs.test_train import wandb_records

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """The arguments that W&B's runs are begun with; they are disabled."""
    arguments = []
    init = wandb.init

    def watched(**given):
        arguments.append(given)
        if given["mode"] in failing:
            raise wandb.errors.CommError("run ID is in use")
        return init(**{**given, "mode": "disabled"})

    failing: set[str] = set()
    monkeypatch.setattr(wandb, "init", watched)
    for name in ("MODE", "PROJECT", "ENTITY", "NAME", "TAGS", "DIR", "RUN_GROUP", "API_KEY"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    arguments.append(failing)
    yield arguments
    # What it has read of the environment holds for its process.
    wandb.teardown()


def test_variables_count_unless_the_configuration_says_otherwise(begun, monkeypatch, tmp_path):
    folder = tmp_path / "digits-p0"
    for name, value in (("PROJECT", "mine"), ("NAME", "night"), ("RUN_GROUP", "team")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    wandb_logger(str(folder))
    given = begun[-1]
    assert (given["project"], given["name"], given["group"]) == ("mine", "night", "team")
    assert given["dir"] == str(tmp_path / "elsewhere")
    wandb_logger(str(folder), project="ours", group="sweep")
    assert (begun[-1]["project"], begun[-1]["group"]) == ("ours", "sweep")


def test_without_variables_a_run_is_named_as_its_folder(begun, tmp_path):
    wandb_logger(str(tmp_path / "digits-p0"))
    given = begun[-1]
    assert (given["project"], given["name"], given["group"]) == ("ftc", "digits-p0", None)
    assert given["dir"] == str(tmp_path / "digits-p0")


@pytest.mark.parametrize(("asked", "mode"), [("", "offline"), ("Offline", "offline"), (" ONLINE ", "online")])
def test_modes_are_read_however_they_are_written(begun, monkeypatch, tmp_path, asked, mode):
    monkeypatch.setenv("WANDB_MODE", asked)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    wandb_logger(str(tmp_path / "run"))
    assert begun[-1]["mode"] == mode


def test_a_mode_that_is_none_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "nowhere")
    with pytest.raises(InputError, match="WANDB_MODE=nowhere: no such mode; choose from online, offline"):
        logger_factories(composed(TrainConfig, "train"))


def test_a_run_goes_on_with_less_of_wandb(begun, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "online")
    begun[0].update({"online", "offline"})
    with pytest.warns(UserWarning, match="W&B does not answer"):
        logger = wandb_logger(str(tmp_path / "run"))
    assert [given["mode"] for given in begun[1:]] == ["online", "offline", "disabled"]
    logger.log_metrics({"x": 1.0})


def test_the_id_of_a_run_is_made_anew_where_its_file_is_damaged(begun, tmp_path):
    known = tmp_path / "run" / "wandb" / "run_id"
    known.parent.mkdir(parents=True)
    known.write_bytes(b"\xff\x00 not an id")
    wandb_logger(str(tmp_path / "run"))
    first = begun[-1]["id"]
    assert len(first) == 8
    wandb_logger(str(tmp_path / "run"))
    assert begun[-1]["id"] == first


SHORT = (
    "source.max_epochs=1",
    "trainer.max_epochs=1",
    "calibration.use=[alg]",
    "logger=wandb",
    "run_dir=run",
)
GIVEN = {"PROJECT": "mine", "ENTITY": "lab", "NAME": "night", "TAGS": "a,b", "RUN_GROUP": "team"}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The folder of one run with every tracker."""
    home = tmp_path_factory.mktemp("trackers")
    done = run_train(
        home,
        *SHORT[:2],
        "figures=[png]",
        "calibration.use=[alg,pcv]",
        "logger=[csv,wandb,tensorboard,mlflow]",
        "logger.wandb.artifacts=[model]",
        "logger.mlflow.artifacts=[model,report]",
        "run_dir=run",
        WANDB_MODE="offline",
        WANDB_DIR=str(home),
        MLFLOW_DISABLE_TELEMETRY="true",
        **{f"WANDB_{name}": value for name, value in GIVEN.items()},
    )
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr
    return home


@pytest.fixture(scope="module")
def record(home) -> RunRecord:
    return RunRecord.read(home / "run")


@pytest.fixture(scope="module")
def wandb_file(home) -> Path:
    (file,) = home.glob("wandb/offline-run-*/*.wandb")
    return file


@pytest.fixture(scope="module")
def rows(wandb_file) -> list[dict[str, str]]:
    """W&B's history: values as JSON by name, those of media by ``name.field``."""
    return [
        {item.key or ".".join(item.nested_key): item.value_json for item in r.history.item}
        for r in wandb_records(wandb_file)
        if r.WhichOneof("record_type") == "history"
    ]


@pytest.fixture(scope="module")
def summary(wandb_file) -> dict[str, str]:
    """W&B's summary, as JSON by name."""
    return {
        item.key or ".".join(item.nested_key): item.value_json
        for r in wandb_records(wandb_file)
        if r.WhichOneof("record_type") == "summary"
        for item in r.summary.update
    }


@pytest.fixture(scope="module")
def events(home) -> EventAccumulator:
    everything = dict.fromkeys(("scalars", "images", "histograms", "tensors"), 0)
    return EventAccumulator(str(home / "run" / "tensorboard"), size_guidance=everything).Reload()


@pytest.fixture(scope="module")
def mlflow_run(home):
    """The client, and the only run of the store."""
    client = MlflowClient(f"sqlite:///{home}/outputs/mlruns/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("ftc").experiment_id])
    return client, run


def test_a_real_run_has_what_the_variables_say(wandb_file):
    (begun,) = (r.run for r in wandb_records(wandb_file) if r.WhichOneof("record_type") == "run")
    assert (begun.project, begun.entity, begun.display_name) == ("mine", "lab", "night")
    assert (list(begun.tags), begun.run_group) == (["a", "b"], "team")


def test_wandb_has_one_chart_an_evaluation_with_curves_and_all_marks(wandb_file, rows, record):
    charts = [row for row in rows if "val/curve.path" in row]
    assert [json.loads(row["val/epoch"]) for row in charts] == [-1, 0]
    (tested,) = (row for row in rows if row.get("test/epoch") == "0" and "test/curve.path" in row)
    source, tuned, of_test = (
        json.loads((wandb_file.parent / "files" / json.loads(path)).read_text())
        for path in (*(row["val/curve.path"] for row in charts), tested["test/curve.path"])
    )
    names = [[re.sub(r"[-\d.]+$", "#", line["name"]) for line in chart["data"]] for chart in (source, tuned)]
    marks = ["ALG, γ = #", "PCV, γ = #", "oracle, γ* = #"]
    assert names == [
        ["source, AUSUC #", "source, γ = #", *marks],
        ["source, AUSUC #", "fine-tuned, AUSUC #", "source, γ = #", "fine-tuned, γ = #", *marks],
    ]
    assert source["data"][0]["x"] == tuned["data"][0]["x"]
    # As on the run's figure.
    stages = dict(record.rows())
    shown = dict(zip(("source", "fine_tuned", "alg", "pcv", "oracle"), of_test["data"][2:], strict=True))
    for name, mark in shown.items():
        metrics = stages[name].metrics
        assert mark["x"] == [pytest.approx(100 * metrics["acc_seen"])]
        assert mark["y"] == [pytest.approx(100 * metrics["acc_absent"])]
    for line, name in zip(of_test["data"], ("source", "fine_tuned"), strict=False):
        assert 20 < len(line["x"]) == len(line["customdata"]) <= 200
        assert line["name"].endswith(f"{100 * stages[name].metrics['ausuc']:.1f}")


def test_wandb_has_the_final_table_the_summary_and_the_artifact(wandb_file, rows, summary, record):
    (path,) = (json.loads(row["results/table.path"]) for row in rows if "results/table.path" in row)
    table = json.loads((wandb_file.parent / "files" / path).read_text())
    assert table["columns"] == ["stage", *COLUMNS, "gamma", "lane", "uses"]
    assert [row[0] for row in table["data"]] == ["source", "fine_tuned", "alg", "pcv", "oracle"]
    for row, (_, stage) in zip(table["data"], record.rows(), strict=True):
        assert row[1 : 1 + len(COLUMNS)] == [stage.metrics.get(name) for name in COLUMNS]
        assert row[-3:] == [stage.gamma, stage.lane, ", ".join(stage.uses)]
    for name, value in record.scalars().items():
        assert value is None or json.loads(summary[name]) == value
        assert not any(name in row for row in rows)
    records = wandb_records(wandb_file)
    sent = [r.artifact for r in records if r.WhichOneof("record_type") == "artifact"]
    (model,) = (artifact for artifact in sent if artifact.type == "model")
    files = {Path(entry.local_path) for entry in model.manifest.contents}
    assert {file.name for file in files} == {"calibrated.safetensors", "results.json"}
    assert all(file.is_absolute() and file.is_file() for file in files)
    assert sum(r.WhichOneof("record_type") == "exit" for r in records) == 1


def test_tensorboard_has_scalars_charts_and_results(events, record):
    tags, steps = events.Tags(), 24  # one epoch of 1,500 images, 64 each
    for name, value in record.scalars().items():
        if value is not None:
            (point,) = events.Scalars(name)
            assert (point.step, point.value) == (steps, pytest.approx(value))
    assert [point.step for point in events.Scalars("val/alg/gamma")] == [0, steps - 1]
    assert [point.value for point in events.Scalars("val/epoch")] == [-1, 0]
    assert [image.step for image in events.Images("val/curve")] == [0, steps - 1]
    assert {f"figures/{name}" for name in ("seen_absent_curve", "gains", "accuracies")} <= set(tags["images"])
    (text,) = events.Tensors("results/table/text_summary")
    assert "| pcv | " in text.tensor_proto.string_val[0].decode()
    name = "val/logit_gap_on_seen_histogram".replace("gap", "ground_truth")
    assert [h.histogram_value.num for h in events.Histograms(name)] == [500, 500]


def test_mlflow_has_scalars_charts_and_results(home, mlflow_run, record):
    client, run = mlflow_run
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    for name, value in record.scalars().items():
        assert value is None or run.data.metrics[name] == value
    history = client.get_metric_history(run.info.run_id, "val/epoch")
    assert sorted((point.step, point.value) for point in history) == [(0, -1), (23, 0)]
    assert not (home / "mlruns").exists()
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    (chart,) = artifacts.glob("images/val~curve+step+23+*.png")
    height, width, _ = np.asarray(Image.open(chart)).shape
    assert height == 520 and width in (919, 920)  # matplotlib's versions round otherwise
    with (artifacts / "results" / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["acc_all"]) for row in table] == [s.metrics["acc_all"] for _, s in record.rows()]
    sent = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*.*")}
    wanted = {"model/results.json", "model/calibrated.safetensors", "report/report.html", "figures/gains.png"}
    assert wanted <= sent


PLACES = {
    "split": "val|test",
    "group": "all|seen|absent",
    "calibrator": "alg|pcv|oracle",
    "model": "source|fine_tuned",
    "k": r"\d+",
    "tradeoff": "harmonic|balanced|ausuc",
    "probability": "brier|ece|confidence",
    "term": "ground_truth|gap|(seen|absent)_(max|mean|rival)",
    "main": "acc_all|acc_seen|acc_absent|harmonic|balanced|ausuc|ncm_acc_all|ncm_acc_absent",
    "selection": "|".join(OBJECTIVES),
    "figure": r"\w+",
}


def documented() -> dict[str, list[re.Pattern[str]]]:
    """Patterns of names by tracker, from the table in docs/trackers.md."""
    page = (DOCS / "trackers.md").read_text()
    lines = page.partition("| name | unit ")[2].splitlines()
    trackers = [cell.strip() for cell in lines[0].split("|") if cell.strip() and cell.strip() != "when"]
    found: dict[str, list[re.Pattern[str]]] = {name: [] for name in trackers}
    for line in lines[2 : lines.index("")]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`([^`]*[/<][^`]*|epoch)`", cells[0]):
            pattern = re.escape(name).replace(r"\[", "(").replace(r"\]", ")?")
            for place, choices in PLACES.items():
                pattern = pattern.replace(f"<{place}>", f"({choices})")
            for tracker, mark in zip(trackers, cells[3:], strict=True):
                if mark:
                    found[tracker].append(re.compile(pattern))
    return found


def test_every_logged_name_is_in_the_table_and_every_line_is_of_a_name(
    home, rows, summary, events, mlflow_run
):
    with (home / "run" / "metrics.csv").open() as file:
        of_csv = set(next(csv.reader(file))) - {"step"}
    of_wandb = {name.partition(".")[0] for name in {*summary, *(name for row in rows for name in row)}}
    tags = events.Tags()
    kinds = (*tags["images"], *tags["histograms"], *tags["scalars"], *tags["tensors"])
    run = mlflow_run[1]
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    kept = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*.*")}
    shown = {re.sub(r"^images/(.*?)\+.*", r"\1", name).replace("~", "/").partition(".")[0] for name in kept}
    logged = {
        "CSV": of_csv,
        "W&B": {name for name in of_wandb if not name.startswith("_")},
        "TensorBoard": {name.removesuffix("/text_summary") for name in kinds},
        "MLflow": {
            *run.data.metrics,
            *(name for name in shown if not name.startswith(("model/", "report/"))),
        },
    }
    expected = documented()
    assert set(expected) == set(logged)
    for tracker, names in logged.items():
        patterns = expected[tracker]
        unknown = {name for name in names if not any(p.fullmatch(name) for p in patterns)}
        assert not unknown, tracker
        unused = [p.pattern for p in patterns if not any(p.fullmatch(name) for name in names)]
        assert not unused, tracker


def test_wandbs_own_agent_can_run_the_sweep_of_the_docs(tmp_path, summary):
    sweep = yaml.safe_load((DOCS / "sweep.yaml").read_text())
    metric = sweep["metric"]["name"]
    assert "oracle" not in metric
    assert isinstance(json.loads(summary[metric]), float)
    for end in (0, -1):
        ends = {
            name: [*p.get("values", ()), *(p[e] for e in ("min", "max") if e in p)][end]
            for name, p in sweep["parameters"].items()
        }
        assert all(isinstance(value, float) for value in ends.values())
        line = agents_line(sweep, {name: {"value": value} for name, value in ends.items()})
        assert line[:4] == ["/usr/bin/env", "python", "-m", "ftc.train"]
        done = run_train(tmp_path, *line[4:], "--cfg", "job")
        assert done.returncode == 0, done.stderr
        config = yaml.safe_load(done.stdout)
        for name, value in ends.items():
            group, key = name.split(".")
            assert config[group][key] == value
        assert metric.removeprefix("selection/") in OBJECTIVES
        composed(TrainConfig, "train", *line[4:], f"objective={metric.removeprefix('selection/')}")


def agents_line(sweep: dict, values: dict) -> list[str]:
    """The command line that W&B's agent makes of a sweep and the values that the server chose."""
    known = create_sweep_command_args({"args": values})
    known |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
    parts = create_sweep_command([*sweep["command"]])
    return [word for part in parts for word in (known[part[2:-1]] if part.startswith("${") else [part])]


def test_an_agents_run_is_the_one_that_is_logged_to(begun, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "chosen1")
    logger = wandb_logger(str(tmp_path / "run"), project="ours")
    assert (begun[-1]["id"], begun[-1]["project"]) == (None, None)
    assert logger.experiment.id == "chosen1"
    assert not (tmp_path / "run" / "wandb" / "run_id").exists()


WRONG = {
    (
        "logger=wandb",
        "logger.wandb.artifacts=[modle]",
    ): "logger.wandb.artifacts=modle: no such artifact; choo",
    ("logger=mlflow", "logger.mlflow.artifacts=report"): None,
    ("logger=mlflow", "logger.mlflow.artifacts=5"): "logger.mlflow.artifacts=5: no such artifact; choose fr",
}


@pytest.mark.parametrize("overrides", WRONG)
def test_artifacts_are_refused_before_anything_runs(overrides):
    config, message = composed(TrainConfig, "train", *overrides), WRONG[overrides]
    if message is None:
        assert len(logger_factories(config)) == 1
    else:
        with pytest.raises(InputError, match=re.escape(message)):
            logger_factories(config)


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("mlflow", "sqlalchemy")]
)
def test_a_missing_package_names_the_extra_before_anything_runs(monkeypatch, name, package):
    find = errors.find_spec
    monkeypatch.setattr(errors, "find_spec", lambda wanted: None if wanted == package else find(wanted))
    line = rf"logger\.{name}: needs {package}, which is not installed; pip install 'ftc\[trackers\]'"
    with pytest.raises(InputError, match=line):
        logger_factories(composed(TrainConfig, "train", f"logger={name}"))


class OnesOwn(Logger):
    """A logger that knows Lightning alone, and may be out of order."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.broken, self.rows = broken, []

    name, version = "own", ""

    def log_hyperparams(self, *_, **__):
        pass

    def log_metrics(self, metrics, step=None):
        if self.broken:
            raise OSError("no space\nleft")
        self.rows.append((step, metrics))


def own(broken: bool = False) -> list[Callable[[], Logger]]:
    """The factories of a configuration that names `OnesOwn`."""
    config = composed(TrainConfig, "train", "logger=csv")
    node = {"_target_": f"{OnesOwn.__module__}.{OnesOwn.__name__}", "broken": broken}
    return logger_factories(config.model_copy(update={"logger": {"mine": node}}))


def test_a_logger_of_ones_own_gets_the_scalars(home, record):
    with closing(own()) as loggers:
        log_record(loggers, record, home / "run", 24)
    assert loggers[0].rows == [(24, {k: v for k, v in record.scalars().items() if v is not None})]


def test_the_failure_of_a_logger_is_told_once(home, record):
    with pytest.warns(UserWarning) as warned, closing(own(broken=True)) as loggers:
        loggers[0].log_metrics({"a": 1.0}, 0)
        log_record(loggers, record, home / "run", 24)
    (message,) = (str(w.message) for w in warned)
    assert message.startswith("OnesOwn failed (OSError: no space left); nothing more is logged there")


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_tracker_that_fails_at_the_end_stops_nothing(home, record, monkeypatch, tmp_path, name):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/outputs/mlruns/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ftc")
    config = composed(TrainConfig, "train", f"logger={name}", f"run_dir={tmp_path}/run")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "broken.png").write_text("no picture")
    failing = pytest.warns(UserWarning, match=r"failed \(.*nothing more is logged there")
    with failing as warned, closing(logger_factories(config)) as loggers:
        if name == "mlflow":
            monkeypatch.setattr(loggers[0].experiment, "log_text", lambda *_: 1 / 0)
        log_record(loggers, record, tmp_path, 24)
        log_record(loggers, record, tmp_path, 24)
    assert len(warned) == 1


def test_mlflow_that_does_not_answer_is_left_out(monkeypatch, tmp_path):
    (tmp_path / "store").write_text("in the way")
    with pytest.warns(UserWarning, match="MLflow does not answer .*nothing there"):
        logger = mlflow_logger(str(tmp_path / "run"), "unused", f"sqlite:///{tmp_path}/store/mlflow.db")
    assert isinstance(logger, DummyLogger)


def test_a_run_that_goes_on_is_the_same_mlflow_run(home, monkeypatch, tmp_path):
    uri = f"sqlite:///{home}/outputs/mlruns/mlflow.db"
    first, again = (mlflow_logger(str(tmp_path / "run"), "unused", uri, "again", "team") for _ in "ab")
    assert first.run_id == again.run_id
    (tmp_path / "run" / "mlflow" / "run_id").write_text("0" * 32)
    other = mlflow_logger(str(tmp_path / "run"), "unused", uri, "again")
    assert other.run_id != first.run_id == again.run_id
    run = first.experiment.get_run(first.run_id)
    assert (run.data.tags["group"], run.info.run_name) == ("team", "run")


@pytest.mark.slow
def test_a_login_without_network_logs_offline_with_a_warning(tmp_path):
    dead = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = run_train(tmp_path, *SHORT, **dead)
    assert done.returncode == 0, done.stderr
    assert "W&B does not answer" in done.stderr
    assert len(list(tmp_path.glob("run/wandb/offline-run-*/*.wandb"))) == 1
