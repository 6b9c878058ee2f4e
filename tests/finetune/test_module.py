from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from ftc import FineTuneModule, InputError, PartitionedDataModule
from ftc.data import Loading, Preprocessing
from ftc.finetune import Full, build_optimizer, build_scheduler
from ftc.models import create_classifier

KWARGS = {"in_chans": 1, "pretrained_cfg_overlay": {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5]}}
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
    "accelerator": "cpu",
}


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return create_classifier("test_resnet", 6, kwargs=KWARGS)


@pytest.fixture
def data(reader, partition, classifier):
    preprocessing = Preprocessing(classifier.data_config)
    return PartitionedDataModule(
        reader,
        partition,
        preprocessing,
        val=reader,
        test=reader,
        loading=Loading(batch_size=8, iterations_per_epoch=5),
    )


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(classifier):
    module = FineTuneModule(classifier, partial(build_optimizer, name="sgd", lr=0.1))
    losses = []
    for size in (8, 3):  # the last batch of a pass may be smaller
        batch = {"image": torch.randn(size, 1, 32, 32), "target": torch.arange(size) % 6}
        losses += [float(module.training_step(batch, 0))] * size
    assert float(module.mean_loss.compute()) == pytest.approx(sum(losses) / len(losses))


def test_learning_rates_and_decay_of_every_parameter(classifier):
    optimizer = build_optimizer(
        Full().parameter_groups(classifier), "sgd", lr=0.1, backbone_lr_scale=0.2, weight_decay=0.3
    )
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in classifier.named_parameters():
        expected = 0.1 if name.startswith("head.") else pytest.approx(0.02)
        assert rates[id(parameter)] == (expected, 0.3), name
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["nesterov"]


@pytest.mark.parametrize("name", ["sgd", "adam", "adabelief", "adadelta", "adagrad", "rmsprop", "adamw"])
def test_the_papers_optimisers_train(classifier, name):
    optimizer = build_optimizer(Full().parameter_groups(classifier), name, lr=1e-3)
    before = classifier.head.weight.detach().clone()
    classifier(torch.randn(2, 1, 32, 32)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, classifier.head.weight)


def test_unknown_optimiser_and_schedule(classifier):
    with pytest.raises(InputError, match=r"optimizer\.name=sdg: choose from .*sgd"):
        build_optimizer(Full().parameter_groups(classifier), "sdg", lr=0.1)
    optimizer = build_optimizer(Full().parameter_groups(classifier), "sgd", lr=0.1)
    with pytest.raises(InputError, match=r"scheduler\.name=cosin"):
        build_scheduler(optimizer, 10, "cosin")


def test_cosine_anneals_per_iteration_to_zero(classifier, data):
    rates: list[list[float]] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    module = FineTuneModule(classifier, partial(build_optimizer, name="sgd", lr=0.1), build_scheduler)
    trainer = Trainer(max_epochs=3, callbacks=[Watch()], limit_val_batches=0, **QUIET)
    trainer.fit(module, data)
    assert len(rates) == 15
    for step, (backbone, head) in enumerate(rates):
        assert head == pytest.approx(0.1 * (1 + math.cos(math.pi * step / 15)) / 2)
        assert backbone == pytest.approx(0.1 * head)


def test_loss_is_cross_entropy_over_all_columns(classifier, data):
    module = FineTuneModule(classifier, partial(build_optimizer, name="sgd", lr=0.1))
    batch = next(iter(data.train_dataloader()))
    module.eval()
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    logits = module(batch["image"]).double()
    expected = torch.stack(
        [row.logsumexp(0) - row[y] for row, y in zip(logits, batch["target"], strict=True)]
    )
    assert module.training_step(batch, 0).item() == pytest.approx(expected.mean().item())


def test_columns_left_out_of_the_loss_learn_nothing(classifier, data):
    module = FineTuneModule(classifier, partial(build_optimizer, name="sgd", lr=0.1), hidden=[1, 5])
    batch = next(iter(data.train_dataloader()))
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    module.eval()
    loss = module.training_step(batch, 0)
    loss.backward()
    kept = [0, 2, 3, 4]
    logits = module(batch["image"])[:, kept]
    target = torch.tensor([kept.index(y) for y in batch["target"].tolist()])
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, target).item())
    assert (classifier.head.weight.grad[[1, 5]] == 0).all()
    assert (classifier.head.weight.grad[kept] != 0).any()
