"""Methods do what they say: what is trained, on which loss, and what the model is afterwards."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from ftc.data import Loading, PartitionedDataModule, Preprocessing
from ftc.finetune import FineTuneModule, Full, LinearProbe, SeenSoftmax, build_optimizer
from ftc.models import copied, create_classifier

KWARGS = {
    "in_chans": 1,
    "pretrained_cfg_overlay": {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5], "crop_pct": 1.0},
}


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return create_classifier("test_resnet", 6, kwargs=KWARGS)


def trained(classifier, method, reader, partition):
    """The weights before and after an epoch with validation in its middle, the method finished."""
    data = PartitionedDataModule(
        reader,
        partition,
        Preprocessing(classifier.data_config),
        val=reader,
        loading=Loading(batch_size=8, iterations_per_epoch=4),
    )
    optimizer = partial(build_optimizer, name="sgd", lr=0.05, backbone_lr_scale=1.0)
    module = FineTuneModule(classifier, optimizer, method=method)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        val_check_interval=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    before = copied(classifier.timm_state_dict())
    with module.prepared(partition):
        trainer.fit(module, datamodule=data)
    return before, copied(classifier.timm_state_dict())


def test_linear_probe_leaves_the_backbone_alone_buffers_included(classifier, reader, partition):
    before, after = trained(classifier, LinearProbe(), reader, partition)
    head = {f"{classifier.head_name}.weight", f"{classifier.head_name}.bias"}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == head
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert all(module.training for module in classifier.modules())


@pytest.mark.parametrize("method", [Full(), SeenSoftmax()])
def test_other_methods_train_everything_and_the_batch_statistics(classifier, reader, partition, method):
    before, after = trained(classifier, method, reader, partition)
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_linear_probe_offers_the_head_alone_to_the_optimiser(classifier, partition):
    method = LinearProbe()
    method.prepare(classifier, partition)
    groups = method.parameter_groups(classifier)
    assert groups == {"backbone": [], "head": list(classifier.head.parameters())}
    optimizer = build_optimizer(groups, "sgd", lr=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]


def test_seen_softmax_is_cross_entropy_over_the_seen_columns(partition):
    method = SeenSoftmax()
    method.prepare(None, partition)
    logits = torch.randn(20, 6, requires_grad=True)
    seen = torch.tensor(partition.seen)
    chosen = torch.randint(0, len(seen), (20,))
    loss = method.loss({"logits": logits, "features": torch.zeros(20, 1)}, {"target": seen[chosen]})
    assert loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits[:, seen], chosen).item(), rel=1e-6
    )
    loss.backward()
    others = [c for c in range(6) if c not in partition.seen]
    assert (logits.grad[:, others] == 0).all()
    assert (logits.grad[:, seen] != 0).all()


def test_full_is_cross_entropy_over_all_columns():
    logits, target = torch.randn(20, 6), torch.randint(0, 6, (20,))
    found = Full().loss({"logits": logits, "features": torch.zeros(20, 1)}, {"target": target})
    assert torch.equal(found, torch.nn.functional.cross_entropy(logits, target))
