"""``trainer=fsdp``: processes that share the weights compute what processes with whole ones do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import multiprocessing
from torch.distributed.device_mesh import init_device_mesh

from ftc import InputError
from ftc.assembly.trainers import SHARDS_ON_CPUS, build_trainer
from ftc.benchmarks.digits import mnist
from ftc.config.commands import TrainConfig
from ftc.data import ArrayReader
from ftc.data.loaders import ReaderDataset
from ftc.data.sampler import PADDING, ShardSampler
from ftc.models import create_classifier
from ftc.results import RunRecord
from tests.commands import run_fresh, run_module
from tests.conftest import composed

shards_on_cpus = pytest.mark.skipif(not SHARDS_ON_CPUS, reason="this torch shards on GPUs only")

MODELS = ("test_resnet.r160_in1k", "test_vit", "test_convnext")
WEIGHTS = "checkpoints/calibrated.safetensors"
# The first of two processes has one sample more, and with it one batch of 64.
SIZE = 129


def odd(split: str) -> ArrayReader:
    """Digits, an odd number of them."""
    reader = mnist(split)
    rows = np.linspace(0, len(reader.targets) - 1, SIZE).astype(int)
    return ArrayReader(reader.images[rows], reader.targets[rows], reader.class_names)


@pytest.mark.parametrize(("size", "world_size"), [(129, 2), (128, 2), (10, 3), (11, 3)])
def test_padded_shards_are_equally_long_and_hold_every_sample_once(size, world_size):
    shards = [list(ShardSampler(size, rank, world_size, padded=True)) for rank in range(world_size)]
    assert len({len(shard) for shard in shards}) == 1
    assert sorted(i for shard in shards for i in shard if i != PADDING) == list(range(size))
    for rank, shard in enumerate(shards):
        real = [i for i in shard if i != PADDING]
        assert real == list(ShardSampler(size, rank, world_size))


def test_padding_is_an_image_again_with_no_id():
    dataset = ReaderDataset(torch.arange(5) % 2, torch.tensor([1, 3, 4]), lambda i: torch.tensor([i]))
    batch = dataset.__getitems__([0, 2, PADDING])
    assert batch["id"].tolist() == [1, 4, PADDING]
    assert batch["image"][:, 0].tolist() == [1, 4, 4]


def equal(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return state.keys() == expected.keys() and all(torch.equal(state[n], w) for n, w in expected.items())


def work(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    mesh = init_device_mesh("cpu", (world_size,))
    found: dict[str, Any] = {}
    for name in MODELS:
        torch.manual_seed(0)
        classifier = create_classifier(name, 7).eval()
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            whole, weights = classifier(images), classifier.timm_state_dict()
            other = {n: w + 1 if w.is_floating_point() else w for n, w in weights.items()}
            weights = {n: w.clone() for n, w in weights.items()}
            classifier.shard(mesh)
            own = sum(p.to_local().numel() for p in classifier.parameters())
            sharded = classifier(images)
            gathered = equal(classifier.timm_state_dict(), weights)
            classifier.load_timm_state_dict(other)
            moved = equal(classifier.timm_state_dict(), other)
            classifier.load_timm_state_dict(weights)
            again = classifier(images)
        found[name] = {
            "logits": [whole, sharded, again],
            "gathered": gathered,
            "moved": moved,
            "share": own / sum(p.numel() for p in classifier.parameters()),
        }
    torch.save(found, Path(folder) / f"{rank}.pt")


@shards_on_cpus
def test_sharded_weights_are_loaded_and_gathered_whole(tmp_path):
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    multiprocessing.start_processes(work, (2, str(tmp_path)), nprocs=2, start_method="forkserver")
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name in MODELS:
        for found in (rank[name] for rank in ranks):
            whole, sharded, again = found["logits"]
            torch.testing.assert_close(sharded, whole)
            torch.testing.assert_close(again, whole)
            assert found["gathered"]
            assert found["moved"]
            # Not quite halves: what is one along its first dimension is not split.
            assert 0.3 < found["share"] < 0.7
        assert sum(rank[name]["share"] for rank in ranks) == pytest.approx(1)


@pytest.mark.parametrize("override", ["ema=0.9", "compile=true"])
def test_what_wants_whole_weights_is_refused(override):
    key = override.partition("=")[0]
    with pytest.raises(InputError, match=rf"{key}=.*trainer\.strategy=fsdp shards them; leave it out"):
        composed(TrainConfig, "train", "trainer=fsdp", override)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so():
    config = composed(TrainConfig, "train", "trainer=fsdp")
    with pytest.raises(InputError, match=r"trainer: No supported gpu"):
        build_trainer(config.trainer, [])


def test_a_torch_that_cannot_shard_on_cpus_is_told(monkeypatch):
    monkeypatch.setattr("ftc.assembly.trainers.SHARDS_ON_CPUS", False)
    config = composed(TrainConfig, "train", "trainer=ddp_cpu", "trainer.strategy=fsdp")
    with pytest.raises(InputError, match=r"trainer\.strategy=fsdp: torch .* shards on GPUs only"):
        build_trainer(config.trainer, [])


RUN = (
    "trainer.max_epochs=2",
    "source.max_epochs=1",
    "data.iterations_per_epoch=8",
    "source.iterations_per_epoch=40",
    "data.eval_batch_size=64",
    *(f"data.readers.{split}._target_=tests.runs.test_sharded.odd" for split in ("val", "test")),
    "trainer.gradient_clip_val=1.0",
    "calibration.use=[alg,interpolated,interpolated_prototypes]",
    "logger=csv",
)


def assert_same_run(found: Path, expected: Path, atol: float) -> None:
    """Every sample once, in order; outputs, weights and accuracies equal but for rounding."""
    for file in ("predictions.safetensors", WEIGHTS):
        one, other = load_file(found / file), load_file(expected / file)
        assert one.keys() == other.keys()
        for name, value in other.items():
            torch.testing.assert_close(one[name], value, atol=atol, rtol=0, msg=f"{file}: {name}")
    one, other = RunRecord.read(found), RunRecord.read(expected)
    assert one.num_samples == other.num_samples
    for stage in other.stages.calibrated:
        # An accuracy may change by a sample or two whose logits tie.
        assert one.stages.calibrated[stage].metrics == pytest.approx(
            other.stages.calibrated[stage].metrics, abs=2.1 / SIZE
        )


@shards_on_cpus
@pytest.mark.slow
# Channels last, convolutions of shards round otherwise than those of whole weights; training amplifies it.
@pytest.mark.parametrize(
    ("method", "channels_last"), [("full", False), ("linear_probe", True)], ids=["full", "linear_probe"]
)
def test_processes_that_share_weights_train_as_those_with_whole_ones(tmp_path, method, channels_last):
    for name, strategy in (("whole", "ddp"), ("shared", "fsdp")):
        strategies = ("trainer=ddp_cpu", f"trainer.strategy={strategy}")
        overrides = (*strategies, f"method={method}", f"channels_last={channels_last}", f"run_dir={name}")
        done = run_fresh("train", tmp_path, *RUN, *overrides)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(f"Run folder: {name}") == 1
    assert_same_run(tmp_path / "shared", tmp_path / "whole", atol=1e-4)
    ids = load_file(tmp_path / "shared" / "predictions.safetensors")
    assert torch.equal(ids["fine_tuned/val/id"], torch.arange(SIZE))
    assert torch.equal(ids["source/test/id"], torch.arange(SIZE))

    # The checkpoint is a plain one: a single process evaluates it to the same numbers.
    evaluate = [override for override in RUN if not override.startswith("calibration")]
    done = run_module(
        "evaluate",
        tmp_path,
        *evaluate,
        "checkpoint=shared/checkpoints/last.ckpt",
        "trainer=cpu",
        "calibration.use=[alg]",
        "run_dir=evaluated",
    )
    assert done.returncode == 0, done.stderr
    trained, evaluated = (RunRecord.read(tmp_path / name) for name in ("shared", "evaluated"))
    assert evaluated.stages.fine_tuned.metrics["acc_all"] == pytest.approx(
        trained.stages.fine_tuned.metrics["acc_all"], abs=2.1 / SIZE
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.gpu
def test_gpus_that_share_weights_train_as_those_with_whole_ones(tmp_path):
    for name in ("ddp", "fsdp"):
        done = run_fresh("train", tmp_path, *RUN, f"trainer={name}", f"run_dir={name}")
        assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "fsdp", tmp_path / "ddp", atol=1e-2)
