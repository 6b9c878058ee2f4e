"""Weights of our own: cached once, exchanged and given back."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from filelock import FileLock

from ftc import InputError
from ftc.models import (
    cached_tensors,
    create_classifier,
    load_metadata,
    load_tensors,
    load_weights,
    other_weights,
    save_weights,
)

KWARGS = {"in_chans": 1}


def test_tensors_are_computed_once_and_then_read_from_the_file(tmp_path):
    computed: list[str] = []

    def compute(checkpoint):
        assert not checkpoint.exists()
        computed.append("once")
        return {"x": torch.full((2,), len(computed))}

    path, new = cached_tensors({"lr": 0.1}, tmp_path, compute)
    again, new_again = cached_tensors({"lr": 0.1}, tmp_path, compute)
    assert (new, new_again, path == again, computed) == (True, False, True, ["once"])
    other, _ = cached_tensors({"lr": 0.2}, tmp_path, compute)
    assert other != path
    assert len(computed) == 2
    assert load_metadata(path)["identity"] == {"lr": 0.1}


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "empty", "other file", "another's tensors"])
def test_damaged_tensors_are_told_and_made_again(tmp_path, damage):
    values = {"x": torch.arange(100.0), "flag": torch.tensor([True, False]), "half": torch.ones(3).bfloat16()}
    told: list[str] = []

    def cached():
        return cached_tensors({"lr": 1}, tmp_path, lambda checkpoint: values, told.append)

    path, _ = cached()
    assert cached() == (path, False)
    content = path.read_bytes()
    if damage == "another's tensors":
        save_weights(path, {**values, "x": values["x"] + 1}, {"identity": {"lr": 2}})
    else:
        at = len(content) - 50
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        damaged = {"flipped bit": flipped, "truncated": content[:-7], "empty": b"", "other file": b"x" * 500}
        path.write_bytes(damaged[damage])
    assert cached() == (path, True)
    assert told == [f"{path}: is damaged; it is made again"]
    found = load_tensors(path)
    assert found.keys() == values.keys()
    assert all(torch.equal(found[name], values[name]) for name in values)
    assert cached() == (path, False)


def test_jobs_that_want_the_same_tensors_wait_for_the_one_that_computes_them(tmp_path):
    def compute(checkpoint):
        time.sleep(0.5)
        return {"x": torch.zeros(1)}

    # Locks are per open file, so threads stand for processes.
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: cached_tensors({"lr": 1}, tmp_path, compute), range(3)))
    assert sorted(fresh for _, fresh in results) == [False, False, True]


def test_other_weights_are_given_back(tmp_path):
    own, other = (create_classifier("test_resnet", 6, kwargs=KWARGS) for _ in range(2))
    before = {name: value.clone() for name, value in own.timm_state_dict().items()}
    save_weights(tmp_path / "other.safetensors", other.timm_state_dict())
    with other_weights(own, other.timm_state_dict()):
        for name, value in other.timm_state_dict().items():
            assert torch.equal(own.timm_state_dict()[name], value)
        load_weights(tmp_path / "other.safetensors", own)
        own.head.bias.data += 1
    for name, value in before.items():
        assert torch.equal(own.timm_state_dict()[name], value)


def test_weights_of_another_architecture_are_refused_in_one_line(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"nothing": torch.zeros(1)}, {"gamma": 1.5, "calibrator": "alg"})
    assert load_metadata(path) == {"gamma": 1.5, "calibrator": "alg"}
    with pytest.raises(InputError, match="not weights of this model"):
        load_weights(path, create_classifier("test_resnet", 6, kwargs=KWARGS))


def test_a_cache_keeps_the_checkpoints_of_few_stopped_trainings(tmp_path):
    for number in range(14):
        old = tmp_path / f"{number:016x}.ckpt"
        old.write_bytes(b"x")
        os.utime(old, (1000 + number, 1000 + number))
    with FileLock(tmp_path / f"{1:016x}.lock"):  # that one's training goes on
        cached_tensors({"lr": 1}, tmp_path, lambda checkpoint: {"x": torch.zeros(1)})
    assert sorted(int(path.stem, 16) for path in tmp_path.glob("*.ckpt")) == [1, *range(4, 14)]
