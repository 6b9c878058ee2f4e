"""Methods do what they say: what is trained, on which loss, and what the model is afterwards."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, Trainer
from torch.nn.functional import cross_entropy

from ftc.data import Loading, PartitionedDataModule, Preprocessing
from ftc.errors import InputError
from ftc.finetune import (
    L2SP,
    LOLSGD,
    LPFT,
    BalancedSoftmax,
    BitFit,
    FineTuneModule,
    FrozenHead,
    Full,
    LinearProbe,
    LiNeS,
    LoRA,
    LwF,
    Method,
    OracleAll,
    Rehearsal,
    SeenSoftmax,
    Task,
    WiSEFT,
    build_optimizer,
)
from ftc.models import batch_norms, copied, create_classifier
from ftc.partition import ClassPartition

KWARGS = {
    "in_chans": 1,
    "zero_init_last": False,  # or nothing in a residual block would have a gradient at first
    "pretrained_cfg_overlay": {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5], "crop_pct": 1.0},
}
EPOCHS, ITERATIONS = 2, 4


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return create_classifier("test_resnet", 6, kwargs=KWARGS)


@pytest.fixture
def task(partition):
    return Task(partition, torch.tensor([10, 0, 10, 0, 10, 0]))


class Watch(Callback):
    """Keeps the weights after every step, and the labels of every batch."""

    def __init__(self):
        self.weights, self.targets = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.weights.append(copied(pl_module.classifier.state_dict()))
        self.targets.append(batch["target"].clone())


def train(classifier, method, reader, partition, *, lr=0.05, watch=None, weight_decay=0.0, **data):
    """The weights before and after two epochs with a validation in each, the method finished."""
    loading = Loading(batch_size=8, iterations_per_epoch=ITERATIONS)
    loaders = PartitionedDataModule(
        reader, partition, Preprocessing(classifier.data_config), val=reader, loading=loading, **data
    )
    optimizer = partial(build_optimizer, name="sgd", lr=lr, backbone_lr_scale=1.0, weight_decay=weight_decay)
    module = FineTuneModule(classifier, optimizer, method=method)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        val_check_interval=2,
        callbacks=[watch] if watch else [],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    before = copied(classifier.timm_state_dict())
    torch.manual_seed(1)
    with module.prepared(loaders):
        trainer.fit(module, datamodule=loaders)
    return before, copied(classifier.timm_state_dict()), module


def changed(before, after):
    assert list(before) == list(after)
    assert {n: v.shape for n, v in before.items()} == {n: v.shape for n, v in after.items()}
    return {name for name in before if not torch.equal(before[name], after[name])}


def head_names(classifier):
    return {f"{classifier.head_name}.weight", f"{classifier.head_name}.bias"}


def statistics(before):
    return {
        n for n in before if n.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
    }


def trained_by(method, classifier, before):
    """The names of `timm_state_dict` that a method changes, by its own words; None for every one."""
    weights = {n for n in before if n not in statistics(before)}
    norms = {
        f"{prefix}.{name}"
        for prefix, module in classifier.backbone.named_modules()
        if module in batch_norms(classifier)
        for name in ("weight", "bias")
    }
    head = head_names(classifier)
    match method:
        case LinearProbe():
            return head
        case FrozenHead():
            return set(before) - head
        case BitFit():
            return {n for n in weights if n.endswith(".bias")} | head
        case LoRA():
            return {n for n in weights - norms if not n.endswith(".bias")} | head
    return weights - norms if method.freeze_bn else set(before)


METHODS = (
    Full,
    LinearProbe,
    FrozenHead,
    LPFT,
    BitFit,
    LoRA,
    SeenSoftmax,
    BalancedSoftmax,
    L2SP,
    LwF,
    WiSEFT,
    LiNeS,
    partial(LOLSGD, rounds=2, local_models=2),
    partial(Full, freeze_bn=True),
    partial(Full, mixup=0.2, cutmix=1.0, label_smoothing=0.1),
)


each_method = pytest.mark.parametrize(
    "make", METHODS, ids=lambda make: getattr(make, "__name__", None) or str(make.keywords)
)


@each_method
def test_what_is_not_trained_stays_bit_for_bit_buffers_included(classifier, reader, partition, make):
    method = make()
    before, after, module = train(classifier, method, reader, partition)
    expected = trained_by(method, classifier, before)
    if isinstance(method, LiNeS):  # its first layer goes back to the source model
        expected = {n for n in expected if classifier.layers()[n] or n.endswith("num_batches_tracked")}
    assert changed(before, after) == expected
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert all(module.training for module in classifier.modules())
    counted = sum(before[n].numel() for n in trained_by(method, classifier, before) - statistics(before))
    if not isinstance(method, LoRA):
        assert module.num_trainable == counted


def test_a_cosine_heads_bias_stays_fixed_after_a_frozen_head(reader, partition):
    classifier = create_classifier("test_resnet", 6, kwargs=KWARGS, head="cosine")
    train(classifier, FrozenHead(), reader, partition)
    assert [n for n, p in classifier.head.named_parameters() if not p.requires_grad] == ["bias"]


def test_linear_probe_offers_the_head_alone_to_the_optimiser(classifier, task):
    method = LinearProbe()
    method.prepare(classifier, task)
    groups = method.parameter_groups(classifier)
    assert groups == {"backbone": [], "head": list(classifier.head.parameters())}
    optimizer = build_optimizer(groups, "sgd", lr=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1]


# Losses.


def loss_of(method, logits, target):
    return method.loss({"logits": logits, "features": torch.zeros(len(logits), 1)}, {"target": target})


def test_seen_softmax_is_cross_entropy_over_the_seen_columns(classifier, partition, task):
    method = SeenSoftmax()
    method.prepare(classifier, task)
    logits = torch.randn(20, 6, requires_grad=True)
    seen = torch.tensor(partition.seen)
    chosen = torch.randint(0, len(seen), (20,))
    loss = loss_of(method, logits, seen[chosen])
    assert loss.item() == pytest.approx(cross_entropy(logits[:, seen], chosen).item(), rel=1e-6)
    loss.backward()
    others = [c for c in range(6) if c not in partition.seen]
    assert (logits.grad[:, others] == 0).all()
    assert (logits.grad[:, seen] != 0).all()


def test_full_is_cross_entropy_over_all_columns():
    logits, target = torch.randn(20, 6), torch.randint(0, 6, (20,))
    assert loss_of(Full(), logits, target) == pytest.approx(cross_entropy(logits, target))


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.7]), st.booleans(), st.booleans())
@settings(max_examples=60)
def test_cross_entropy_is_that_over_the_known_columns_alone(seed, smoothing, mixes, hides):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    known = torch.tensor([0, 2, 3, 5] if hides else range(6))
    chosen = torch.randint(0, len(known), (9,), generator=generator)
    target, expected = known[chosen], chosen
    if mixes:
        other = torch.randint(0, len(known), (9,), generator=generator)
        one_hot = torch.nn.functional.one_hot
        target = 0.3 * one_hot(known[chosen], 6).double() + 0.7 * one_hot(known[other], 6).double()
        expected = target[:, known]
    if hides:
        logits = logits.index_fill(1, torch.tensor([1, 4]), -torch.inf)
    found = Full(label_smoothing=smoothing).cross_entropy(logits, target)
    brute = cross_entropy(logits[:, known], expected, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(found, brute)


def test_balanced_softmax_expects_classes_as_often_as_they_are_trained_on(classifier, partition):
    method = BalancedSoftmax(tau=0.5, floor=2.0)
    counts = torch.tensor([30, 0, 10, 1, 20, 0])
    method.prepare(classifier, Task(partition, counts))
    logits, target = torch.randn(20, 6), torch.randint(0, 6, (20,))
    prior = 0.5 * torch.tensor([30.0, 2, 10, 2, 20, 2]).log()
    assert loss_of(method, logits, target) == pytest.approx(cross_entropy(logits + prior, target))


@pytest.mark.parametrize(
    ("columns", "chosen"), [("absent", [1, 5]), ("seen", [0, 2, 4]), ("all", [0, 2, 4, 1, 5])]
)
def test_lwf_keeps_to_the_source_models_softmax_over_its_columns(classifier, task, columns, chosen):
    method = LwF(columns=columns, temperature=3.0, weight=0.7)
    method.prepare(classifier, task)
    images = torch.randn(8, 1, 32, 32)
    source = classifier.eval()(images).detach()
    logits, target = torch.randn(8, 6), torch.randint(0, 6, (8,))
    found = method.loss({"logits": logits, "features": logits}, {"image": images, "target": target})
    before, after = (torch.softmax(z[:, chosen] / 3, 1) for z in (source, logits))
    distance = (before * (before / after).log()).sum(1).mean()
    expected = cross_entropy(logits, target) + 0.7 * 9 * distance
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.mul_(2)
    assert torch.equal(method._source(images), source)


def test_l2_sp_adds_the_gradient_of_its_penalty(classifier, task):
    method = L2SP(beta=0.3)
    method.prepare(classifier, task)
    start = [p.detach().clone() for p in classifier.parameters()]
    for parameter in classifier.parameters():
        parameter.data.add_(torch.randn_like(parameter))
        parameter.grad = torch.ones_like(parameter)
    method.adjust_gradients(classifier)
    for old, parameter in zip(start, classifier.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, 1 + 0.3 * (parameter.detach() - old))


def test_mixed_images_have_mixed_labels(classifier, task):
    method = Full(mixup=1.0)
    method.prepare(classifier, task)
    torch.manual_seed(0)
    image, target = torch.randn(5, 1, 4, 4), torch.tensor([0, 2, 4, 0, 2])
    batch = method.mixed({"image": image, "target": target})
    share = batch["target"][0, 0]  # of the sample itself; the rest is the one before
    assert 0 < share < 1
    one_hot = torch.nn.functional.one_hot(target, 6).float()
    torch.testing.assert_close(batch["target"], share * one_hot + (1 - share) * one_hot.roll(1, 0))
    torch.testing.assert_close(batch["image"], share * image + (1 - share) * image.roll(1, 0))
    untouched = Full()
    untouched.prepare(classifier, task)
    plain = {"image": image, "target": target}
    assert untouched.mixed(plain) is plain


# What happens step by step.


def test_lp_ft_trains_the_head_alone_at_first(classifier, reader, partition):
    watch = Watch()
    start = copied(classifier.state_dict())
    train(classifier, LPFT(probe=0.5), reader, partition, watch=watch, weight_decay=0.1)
    parts = [
        {name.partition(".")[0] for name in start if not torch.equal(start[name], weights[name])}
        for weights in watch.weights
    ]
    assert parts == 4 * [{"head"}] + 4 * [{"head", "backbone"}]


def test_lora_begins_at_the_source_model_and_merges_to_what_it_trained(classifier, task):
    images = torch.randn(4, 1, 32, 32)
    classifier.eval()
    names, plain = list(classifier.timm_state_dict()), classifier(images)
    method = LoRA(rank=2, alpha=4.0)
    method.prepare(classifier, task)
    assert torch.equal(classifier(images), plain)
    groups = method.parameter_groups(classifier)
    assert groups["head"] == list(classifier.head.parameters())
    for layer in (
        m for m in classifier.backbone.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)
    ):
        change = layer.parametrizations.weight[0]
        rows, columns = layer.weight.shape[0], layer.weight[0].numel()
        rank = min(2, rows, columns)
        assert (change.up.shape, change.down.shape) == ((rows, rank), (rank, columns))
    for factor in groups["factors"]:
        factor.data.add_(0.1 * torch.randn_like(factor))
    moved = classifier(images)
    assert not torch.allclose(moved, plain, atol=1e-3)
    assert method.finish(classifier) is False
    classifier.eval()
    assert list(classifier.timm_state_dict()) == names
    assert torch.equal(classifier(images), moved)
    assert all(type(m).__name__ != "ParametrizedConv2d" for m in classifier.modules())


def test_lolsgd_is_the_mean_of_local_models_that_each_lack_classes(classifier, reader, partition):
    method, watch = LOLSGD(rounds=2, local_models=2, left_out=0.4), Watch()
    before, after, module = train(classifier, method, reader, partition, watch=watch)
    assert module.moved_at_end is False  # the last round ended with the last step

    # The same by hand: 8 steps are 2 rounds × 2 local models × 2 steps, whose optimiser begins anew.
    twin = create_classifier("test_resnet", 6, kwargs=KWARGS)
    twin.load_timm_state_dict(before)
    start, done, lacking = before, [], []
    loading = Loading(batch_size=8, iterations_per_epoch=EPOCHS * ITERATIONS)
    data = PartitionedDataModule(reader, partition, Preprocessing(twin.data_config), loading=loading)
    batches = list(data.train_dataloader())
    for local in range(4):
        if local % 2 == 0 and local:
            start, done = {n: (done[0][n] + done[1][n]) / 2 for n in start if n in done[0]}, []
        twin.load_state_dict(twin.state_dict() | named(twin, start))
        optimizer = build_optimizer(Full().parameter_groups(twin), "sgd", lr=0.05, backbone_lr_scale=1.0)
        method.begin_step(twin, 2 * local, 8)
        kept = [c for c in partition.seen if method._weights[c]]
        lacking.append(set(partition.seen) - set(kept))
        for batch in batches[2 * local : 2 * local + 2]:
            chosen = torch.isin(batch["target"], torch.tensor(kept))
            logits = twin(batch["image"])
            losses = cross_entropy(logits, batch["target"], reduction="none")
            loss = (losses * chosen).sum() / len(losses) * len(partition.seen) / len(kept)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        done.append(copied(twin.timm_state_dict()))
    assert {len(classes) for classes in lacking} == {1}
    assert lacking[0] != lacking[1] and lacking[2] != lacking[3]
    for name, value in after.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (done[0][name] + done[1][name]) / 2, atol=1e-5, rtol=1e-4)


def named(classifier, state):
    """Weights of `timm_state_dict` under the names of `state_dict`."""
    own = dict(zip(classifier.timm_state_dict(), classifier.state_dict(), strict=True))
    return {own[name]: value for name, value in state.items()}


def test_lolsgd_averages_what_a_training_that_ended_early_leaves_open(classifier, task):
    method = LOLSGD(rounds=1, local_models=3)
    method.prepare(classifier, task)
    optimizer = build_optimizer(Full().parameter_groups(classifier), "sgd", lr=0.1)
    start = copied(classifier.timm_state_dict())
    moved = {}
    for step in range(3):  # of 6: one local model, and the first step of the next
        method.begin_step(classifier, step, 6)
        with torch.no_grad():
            classifier.head.bias.add_(step + 1.0)
        moved[step] = classifier.head.bias.detach().clone()
        method.end_step(classifier, optimizer, step + 1, 6)
    kept = method.state_dict()
    resumed = LOLSGD(rounds=1, local_models=3)
    resumed.prepare(classifier, task)
    resumed.load_state_dict(kept)
    assert resumed.finish(classifier) is True
    torch.testing.assert_close(classifier.head.bias.detach(), (moved[1] + moved[2]) / 2)
    torch.testing.assert_close(moved[1], start[f"{classifier.head_name}.bias"] + 3)
    torch.testing.assert_close(moved[2], start[f"{classifier.head_name}.bias"] + 3)


def test_lolsgd_wants_two_seen_classes(classifier):
    with pytest.raises(InputError, match="method: LOLSGD leaves seen classes out"):
        LOLSGD().prepare(classifier, Task(ClassPartition(6, [0], [1]), torch.ones(6)))


# What happens in the end.


def test_wise_ft_goes_part_of_the_way(classifier, reader, partition):
    watch = Watch()
    before, after, module = train(classifier, WiSEFT(alpha=0.25), reader, partition, watch=watch)
    assert module.moved_at_end is True
    last = dict(zip(before, watch.weights[-1].values(), strict=True))
    for name, value in after.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, before[name] + 0.25 * (last[name] - before[name]))


def test_lines_goes_farther_the_deeper_the_layer(classifier, reader, partition):
    watch = Watch()
    before, after, _ = train(classifier, LiNeS(alpha=0.2), reader, partition, watch=watch)
    last = dict(zip(before, watch.weights[-1].values(), strict=True))
    layers = classifier.layers()
    for name, value in after.items():
        if value.is_floating_point():
            share = 0.2 + 0.8 * layers[name] / max(layers.values())
            torch.testing.assert_close(value, before[name] + share * (last[name] - before[name]))


# What is trained on.


def test_rehearsal_mixes_images_of_all_classes_of_the_source(classifier, reader, partition):
    method, watch = Rehearsal(share=0.25), Watch()
    train(classifier, method, reader, partition, watch=watch, source=reader, rehearsal=method.rehearsal)
    targets = torch.cat(watch.targets)
    rehearsed = torch.isin(targets, torch.tensor(partition.absent))
    assert rehearsed.any()
    assert not torch.isin(targets, torch.tensor(partition.others)).any()
    assert method.uses == ("seen train", "source domain")


def test_oracle_all_trains_on_absent_classes_too(classifier, reader, partition):
    method, watch = OracleAll(), Watch()
    train(classifier, method, reader, partition, watch=watch, all_classes=method.oracle)
    assert set(torch.cat(watch.targets).tolist()) == {*partition.seen, *partition.absent}
    assert "oracle" in method.title
    assert any("oracle" in name for name in method.uses)


def test_the_full_method_trains_on_seen_classes_alone(classifier, reader, partition):
    watch = Watch()
    train(classifier, Full(), reader, partition, watch=watch, source=reader)
    assert set(torch.cat(watch.targets).tolist()) == set(partition.seen)


# What cannot be.


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (partial(Full, label_smoothing=1.0), "label_smoothing=1.0"),
        (partial(Full, mixup=-1.0), "mixup=-1.0"),
        (partial(Full, cutmix=float("inf")), "cutmix=inf"),
        (partial(LPFT, probe=0.0), "probe=0.0"),
        (partial(LoRA, rank=0), "rank=0"),
        (partial(BalancedSoftmax, floor=0.0), "floor=0.0"),
        (partial(L2SP, beta=-1.0), "beta=-1.0"),
        (partial(LwF, columns="all of them"), "columns=all of them"),
        (partial(LwF, temperature=0.0), "temperature"),
        (partial(WiSEFT, alpha=0.0), "alpha=0.0"),
        (partial(LiNeS, alpha=1.0), "alpha=1.0"),
        (partial(LOLSGD, local_models=1), "2 local models"),
        (partial(Rehearsal, share=1.0), "share=1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


def test_every_method_has_a_title_of_its_own():
    made = [make() for make in METHODS[:-2]]
    assert len({method.title for method in made}) == len(made)
    assert all(isinstance(method, Method) for method in made)


# Layers.


def test_layers_are_in_the_order_of_the_network(classifier):
    layers = classifier.layers()
    assert list(layers) == list(classifier.timm_state_dict())
    assert layers["conv1.0.weight"] < layers["layer1.0.conv1.weight"] < layers["layer2.0.conv1.weight"]
    assert layers["layer1.0.bn1.running_mean"] == layers["layer1.0.conv1.weight"]
    assert all(layers[name] == max(layers.values()) for name in head_names(classifier))


def test_layer_decay_lowers_the_rate_of_shallow_layers(classifier):
    named = dict(classifier.backbone.named_parameters())
    layers = classifier.layers()
    depths = {p: layers[n] for n, p in named.items()} | dict.fromkeys(classifier.head.parameters(), 9)
    assert max(layers.values()) == 9
    groups = Full().parameter_groups(classifier)
    optimizer = build_optimizer(groups, "sgd", lr=1.0, backbone_lr_scale=0.5, layer_decay=0.8, layers=depths)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in named.items():
        assert rates[parameter] == pytest.approx(0.5 * 0.8 ** (9 - layers[name]))
    assert all(rates[parameter] == 1.0 for parameter in classifier.head.parameters())
