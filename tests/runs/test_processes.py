"""Several hosts train as one: two network namespaces, joined by a cable, stand for them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import load_file
from torch.distributed import TCPStore

from ftc import InputError
from ftc.assembly.trainers import build_trainer
from ftc.benchmarks.digits import mnist
from ftc.config.commands import TrainConfig
from ftc.results import RunRecord
from ftc.runs import processes as hosts
from tests.commands import run_fresh
from tests.conftest import composed

RUN = (
    "trainer=ddp_cpu",
    "trainer.max_epochs=1",
    "source.max_epochs=1",
    "data.iterations_per_epoch=4",
    "source.iterations_per_epoch=2",
    "calibration.use=[alg]",
    "logger=csv",
)


class Hosts:
    """Two namespaces; what they say to each other stays between them."""

    def __init__(self) -> None:
        self.names = [f"ftc-{os.getpid()}-{i}" for i in range(2)]

    def __enter__(self) -> Hosts:
        first, second = self.names
        commands = [f"netns add {name}" for name in self.names]
        commands.append(f"link add veth0 netns {first} type veth peer name veth0 netns {second}")
        for i, name in enumerate(self.names):
            commands.append(f"-n {name} address add 10.77.0.{i + 1}/24 dev veth0")
            commands += [f"-n {name} link set {device} up" for device in ("lo", "veth0")]
        for command in commands:
            done = subprocess.run(["ip", *command.split()], text=True, capture_output=True)
            if done.returncode:
                self.__exit__()
                pytest.skip(f"two hosts need network namespaces; ip {command}: {done.stderr.strip()}")
        return self

    def __exit__(self, *_: Any) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def train(self, folders: list[Path], *arguments: str, second: tuple[str, ...] = ()) -> list[Any]:
        """Run ``ftc.train`` on both, in a folder each; ``second`` goes to the second only."""
        torchrun = f"{sys.executable} -m torch.distributed.run --nnodes=2 --nproc-per-node=1"
        where = "--master-addr=10.77.0.1 --master-port=29500"
        job = f"-m ftc.train {' '.join((*RUN, *arguments))} trainer.devices=1 trainer.num_nodes=2"
        env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "veth0"}
        processes = [
            subprocess.Popen(
                [
                    *f"ip netns exec {name} {torchrun} {where} --node-rank={i} {job}".split(),
                    *(second if i else ()),
                ],
                cwd=folders[i],
                env=env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for i, name in enumerate(self.names)
        ]
        try:
            ended = []
            for process in processes:
                out, err = process.communicate(timeout=240)
                ended.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
            return ended
        finally:
            for process in processes:
                process.kill()


@pytest.fixture(scope="module")
def two_hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("two hosts need the command ip; install iproute2")
    with Hosts() as both:
        yield both


@pytest.fixture(scope="module")
def trained(two_hosts, tmp_path_factory) -> tuple[Path, list[Any]]:
    """A folder with the run ``hosts`` of both, and how each host's part ended."""
    folder = tmp_path_factory.mktemp("shared")
    ended = two_hosts.train([folder, folder], "run_dir=hosts")
    assert [process.returncode for process in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    return folder, ended


@pytest.mark.slow
def test_two_hosts_make_one_run(trained):
    folder, (first, second) = trained
    assert first.stdout.count("Run folder: hosts") == 1
    assert first.stdout.count("fine-tuned") == 1
    assert second.stdout == ""
    # Whoever came first trained it; the other waited.
    assert len(list((folder / "outputs" / "cache" / "source").glob("*.safetensors"))) == 1
    predictions = load_file(folder / "hosts" / "predictions.safetensors")
    for stage in ("source", "fine_tuned"):
        training = [predictions[f"{stage}/{split}/id"] for split in ("calibration", "gallery")]
        assert torch.equal(torch.cat(training).sort().values, torch.arange(3000))
        assert torch.equal(predictions[f"{stage}/test/id"], torch.arange(1000))
    assert torch.equal(predictions["fine_tuned/test/target"], mnist("test").targets)
    assert RunRecord.read(folder / "hosts").num_samples == {"seen": 500, "absent": 500, "others": 0}


@pytest.mark.slow
def test_two_hosts_compute_what_two_processes_of_one_do(trained):
    folder, _ = trained
    one = run_fresh("train", folder, *RUN, "run_dir=one", OMP_NUM_THREADS="1")
    assert one.returncode == 0, one.stderr
    results = [json.loads((folder / name / "results.json").read_text()) for name in ("hosts", "one")]
    for content in results:
        del content["timing"]
    assert results[0] == results[1]
    for file in ("predictions.safetensors", "checkpoints/calibrated.safetensors"):
        found, expected = (load_file(folder / name / file) for name in ("hosts", "one"))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.slow
def test_what_one_host_refuses_ends_both(two_hosts, tmp_path):
    second = ("data.readers.val._target_=tests.nothing",)
    ended = two_hosts.train([tmp_path, tmp_path], second=second)
    for process in ended:
        assert process.returncode != 0
        assert process.stdout == ""
        errors = [line for line in process.stderr.splitlines() if line.startswith("ftc: error:")]
        assert len(errors) == 1
        assert errors[0].startswith("ftc: error: data.readers.val=tests.nothing: Error loading")


@pytest.mark.slow
def test_hosts_that_share_no_folder_are_refused(two_hosts, tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    for process in two_hosts.train(folders, "run_dir=run"):
        assert process.returncode != 0
        assert "ftc: error: run_dir=run: not every process sees what the first has written" in process.stderr
    assert not (tmp_path / "second" / "run").exists()


# In parts, without namespaces: threads stand for processes.


@contextmanager
def started_by_torchrun(monkeypatch, processes: int, here: int) -> Iterator[None]:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(here),
        "RANK": "0",
        "LOCAL_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def together(monkeypatch) -> Callable[..., list[Any]]:
    """Runs functions as processes of one torchrun; what each returned or raised."""

    def run(*works: Callable[[], Any]) -> list[Any]:
        own = threading.local()
        ended: list[Any] = [None] * len(works)

        def process(rank: int) -> None:
            own.company = hosts.Company()
            try:
                ended[rank] = works[rank]()
            except Exception as error:
                ended[rank] = error

        with started_by_torchrun(monkeypatch, len(works), len(works)):
            monkeypatch.setattr(hosts, "company", lambda: own.company)
            threads = [threading.Thread(target=process, args=(rank,)) for rank in range(len(works))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=60)
        return ended

    return run


def test_all_come_to_the_end_or_none(together):
    done = []

    def late() -> int:
        with hosts.all_or_none():
            time.sleep(0.3)
            done.append("late")
        return len(done)

    def early() -> int:
        with hosts.all_or_none():
            pass
        return len(done)

    assert together(early, late, early) == [1, 1, 1]

    def refuses() -> None:
        with hosts.all_or_none():
            raise InputError("data.root=x: no such folder")

    ended = together(early, refuses, early)
    assert [type(error) for error in ended] == [InputError] * 3
    assert {str(error) for error in ended} == {"data.root=x: no such folder"}


def test_processes_with_other_files_are_refused(together, tmp_path):
    there, missing = tmp_path / "config.yaml", tmp_path / "other" / "config.yaml"
    there.write_text("name: x\n")

    def sees(path: Path, facts: dict[str, Any], leads: bool = False) -> Callable[[], None]:
        return lambda: hosts.check_shared(path, lambda: facts, leads, patience=0.0)

    facts = {"cache_dir": "a", "partition": {"seen": (0, 1)}}
    assert together(sees(there, facts, True), sees(there, facts)) == [None, None]
    ended = together(sees(there, facts, True), sees(there, {**facts, "cache_dir": "b"}))
    assert {str(e) for e in ended} == {
        "cache_dir: differs between the processes; give all hosts the same files"
    }
    ended = together(sees(there, facts, True), sees(missing, facts))
    assert all(str(error).startswith(f"run_dir={missing.parent}: not every process sees") for error in ended)


def trainer(*overrides: str) -> Trainer:
    config = composed(TrainConfig, "train", *overrides)
    return build_trainer(config.trainer, [], logger=False, enable_checkpointing=False)


def test_several_hosts_want_torchrun():
    with pytest.raises(InputError, match=r"trainer\.num_nodes=2: start the run with torchrun on every host"):
        hosts.check_processes(trainer("trainer=ddp_cpu", "trainer.num_nodes=2"))
    hosts.check_processes(trainer("trainer=ddp_cpu"))


def test_torchrun_and_trainer_agree_on_processes(monkeypatch):
    with started_by_torchrun(monkeypatch, processes=2, here=1):
        hosts.check_processes(trainer("trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2"))
        for wrong in ("trainer=ddp_cpu", "trainer=cpu"):
            with pytest.raises(
                InputError, match="torchrun started 2 processes, 1 of them here; make --nproc"
            ):
                hosts.check_processes(trainer(wrong))
