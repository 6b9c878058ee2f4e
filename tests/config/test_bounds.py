"""Values have an upper bound as well as a lower one; a configuration names no code that nobody allowed."""

from __future__ import annotations

import sys

import pytest

from ftc import InputError
from ftc.assembly.instantiate import make
from ftc.calibrators import FoldPlan
from ftc.config.commands import CalibrateConfig, TrainConfig
from ftc.config.targets import check_targets
from tests.conftest import composed

# Key and value → the range that the message names.
BEYOND = {
    "seed=4294967296": "less than 4294967296",
    "seed=-1": "greater than or equal to 0",
    "source.seed=99999999999": "less than 4294967296",
    "partition.seed=4294967296": "less than 4294967296",
    "calibration.bootstrap.seed=-3": "greater than or equal to 0",
    "optimizer.lr=1e300": "less than or equal to 10000",
    "optimizer.lr=inf": "less than or equal to 10000",
    "optimizer.lr=nan": "less than or equal to 10000",
    "optimizer.weight_decay=1e9": "less than or equal to 10000",
    "source.optimizer.lr=0": "greater than 0",
    "data.batch_size=100000000000": "less than or equal to 1048576",
    "data.eval_batch_size=2000000": "less than or equal to 1048576",
    "data.num_workers=-1": "greater than or equal to 0",
    "data.holdout=nan": "data.holdout=nan",
    "data.holdout=1": "less than 1",
    "source.holdout=1.5": "less than 1",
    "trainer.max_epochs=10000000000": "less than or equal to 1000000000",
    "trainer.gradient_clip_val=inf": "less than or equal to 10000",
    "checkpoint_minutes=inf": "less than or equal to 10000",
    "model.input_size=[3,100000,64]": "less than or equal to 16384",
    f"name={'n' * 200}": "should match pattern",
}


@pytest.mark.parametrize("override", BEYOND)
def test_values_beyond_their_range_are_refused_with_it(override):
    with pytest.raises(InputError, match=BEYOND[override].replace(".", r"\.")) as caught:
        composed(TrainConfig, "train", override)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(override.partition("=")[0])


@pytest.mark.parametrize("seed", [-1, 2**32, 2**32 - 2])
def test_folds_have_seeds_of_32_bits(seed):
    with pytest.raises(InputError, match=rf"seed={seed}: give a whole number from 0 to {2**32 - 3}"):
        FoldPlan(folds=3, seed=seed)


STRANGE = {
    "data.readers.train={_target_: torch.load}": r"data\.readers\.train=torch\.load",
    "data.augmentation=[{_target_: pathlib.Path.write_text, data: x}]": r"data\.augmentation\[0\]=pathlib",
    "+logger.mine={_target_: subprocess.run}": r"logger\.mine=subprocess\.run",
    "method={_target_: builtins.eval}": r"method=builtins\.eval",
    "calibration.calibrators.alg={_target_: wandb.init}": r"calibration\.calibrators\.alg=wandb\.init",
}


@pytest.mark.parametrize("override", STRANGE)
def test_targets_of_other_packages_are_refused_unless_allowed(override):
    with pytest.raises(InputError, match=STRANGE[override] + r".*: would run code .* set allow_targets=\["):
        composed(TrainConfig, "train", override)
    package = override.partition("_target_: ")[2].partition(".")[0]
    composed(TrainConfig, "train", override, f"allow_targets=[{package}]")


def test_code_of_ones_own_needs_no_permission(tmp_path, monkeypatch):
    (tmp_path / "my_photos.py").write_text("def photos():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    check_targets({"data": {"readers": {"train": {"_target_": "my_photos.photos"}}}}, [])
    monkeypatch.delitem(sys.modules, "my_photos", raising=False)


def test_known_modules_are_no_way_to_others():
    with pytest.raises(InputError, match="is no part of that module"):
        make("method", {"_target_": "ftc.files.hashlib.sha256"})
    with pytest.raises(InputError, match=r"data\.x=ftc\.files\.os\.remove: "):
        make("data.x", {"_target_": "ftc.files.os.remove", "path": "x"})


def test_saved_logits_are_calibrated_by_known_targets_only(tmp_path):
    (tmp_path / "eval.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"calibration\.calibrators\.alg=os\.system: would run code"):
        composed(
            CalibrateConfig,
            "calibrate",
            f"eval={tmp_path}/eval.npz",
            "partition.seen=[0]",
            "calibration.calibrators.alg._target_=os.system",
        )
