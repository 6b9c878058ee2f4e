"""W&B's environment variables count, and W&B never stops a training."""

from __future__ import annotations

import pytest
import wandb

from ftc import InputError
from ftc.assembly.loggers import logger_factories, wandb_logger
from ftc.config.commands import TrainConfig
from tests.commands import run_train
from tests.conftest import composed
from tests.runs.test_train import wandb_records


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


def test_a_real_run_has_what_the_variables_say(tmp_path):
    given = {"PROJECT": "mine", "ENTITY": "lab", "NAME": "night", "TAGS": "a,b", "RUN_GROUP": "team"}
    variables = {f"WANDB_{name}": value for name, value in given.items()}
    done = run_train(tmp_path, *SHORT, WANDB_MODE="offline", WANDB_DIR=str(tmp_path), **variables)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    (begun,) = (r.run for r in wandb_records(file) if r.WhichOneof("record_type") == "run")
    assert (begun.project, begun.entity, begun.display_name) == ("mine", "lab", "night")
    assert (list(begun.tags), begun.run_group) == (["a", "b"], "team")


@pytest.mark.slow
def test_a_login_without_network_logs_offline_with_a_warning(tmp_path):
    dead = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = run_train(tmp_path, *SHORT, **dead)
    assert done.returncode == 0, done.stderr
    assert "W&B does not answer" in done.stderr
    assert len(list(tmp_path.glob("run/wandb/offline-run-*/*.wandb"))) == 1
