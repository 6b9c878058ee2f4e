"""What the trainer group says of a training."""

from __future__ import annotations

import pytest

from ftc.config.commands import TrainConfig
from tests.conftest import composed

BESIDE = (
    *("+trainer.check_val_every_n_epoch=15", "+trainer.val_check_interval=0.5"),
    *("+trainer.limit_test_batches=9", "+trainer.log_every_n_steps=3"),
    *("+trainer.enable_model_summary=true", "trainer=ddp_cpu"),
)
WITHIN = (
    *("trainer.precision=bf16-mixed", "+trainer.gradient_clip_algorithm=value", "+trainer.max_steps=4"),
    *("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1.0"),
)


@pytest.mark.parametrize("override", [*BESIDE, *WITHIN])
def test_weights_depend_on_how_they_are_trained_and_on_nothing_beside(override):
    plain, other = (composed(TrainConfig, "train", *o).trainer.recipe() for o in ((), (override,)))
    assert (plain == other) == (override in BESIDE)
