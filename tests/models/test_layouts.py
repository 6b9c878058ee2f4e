"""Weights are found below any key and prefix; averaged ones come first, and what is ambiguous is refused."""

from __future__ import annotations

import argparse

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ftc import InputError
from ftc.models import load_checkpoint
from tests.models.classifiers import COUNTER, RELEASED, TIMM, equal, make, prefixed, released, untouched


def timm_weights(seed):
    return make(seed).timm_state_dict()


def averaged(classifier):
    """The state dict of torch's own average of the weights."""
    return AveragedModel(_Whole(classifier)).state_dict()


class _Whole(nn.Module):
    """A classifier as a plain timm model, as far as its state dict goes."""

    def __init__(self, classifier):
        super().__init__()
        for name, child in (*classifier.backbone.named_children(), (classifier.head_name, classifier.head)):
            self.add_module(name, child)


class _Project(nn.Module):
    """A module of another project, around a compiled backbone."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier
        classifier.backbone.layer1 = torch.compile(classifier.backbone.layer1)
        classifier.backbone = torch.compile(classifier.backbone)


OTHER = timm_weights(3)
SAVED = {
    "timm": (lambda c: c.timm_state_dict(), f"state dict, {TIMM}"),
    "released": (released, f"state dict, {RELEASED}"),
    "wrapped": (lambda c: prefixed("module.", released(c)), f"state dict, prefix module., {RELEASED}"),
    "compiled and wrapped": (
        lambda c: prefixed("module._orig_mod.", c.timm_state_dict()),
        f"state dict, prefix module._orig_mod., {TIMM}",
    ),
    "wrapped and compiled": (
        lambda c: prefixed("_orig_mod.module.", c.timm_state_dict()),
        f"state dict, prefix _orig_mod.module., {TIMM}",
    ),
    "compiled in the middle": (
        lambda c: {"state_dict": _Project(c).state_dict()},
        f"state dict under state_dict, prefix classifier., {RELEASED}",
    ),
    "timm, compiled in the middle": (
        lambda c: prefixed("net._orig_mod.", _compiled_layer(c)),
        f"state dict, prefix net._orig_mod., {TIMM}",
    ),
    "under state_dict": (
        lambda c: {"epoch": 3, "state_dict": c.timm_state_dict()},
        f"state dict under state_dict, {TIMM}",
    ),
    "under model": (
        lambda c: {"model": released(c), "args": argparse.Namespace(lr=0.1)},
        f"state dict under model, {RELEASED}",
    ),
    "of any name": (
        lambda c: {"best_loss": torch.zeros(()), "weights of epoch 3": c.timm_state_dict()},
        f"state dict under weights of epoch 3, {TIMM}",
    ),
    "nested": (
        lambda c: {"checkpoint": {"state_dict": c.timm_state_dict(), "epoch": 3}},
        f"state dict under checkpoint.state_dict, {TIMM}",
    ),
    "nested deeper": (
        lambda c: {"a": {"b": {"c": prefixed("x.y.", released(c))}}},
        f"state dict under a.b.c, prefix x.y., {RELEASED}",
    ),
    "beside an optimizer": (
        lambda c: {"model": c.timm_state_dict(), "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
        f"state dict under model, {TIMM}",
    ),
    "Lightning, net": (
        lambda c: {
            "pytorch-lightning_version": "2.5.0",
            "state_dict": prefixed("net.", c.timm_state_dict()) | {"criterion.weight": torch.ones(6)},
        },
        f"Lightning checkpoint under state_dict, prefix net., {TIMM}",
    ),
    "Lightning, model": (
        lambda c: {
            "pytorch-lightning_version": "2.5.0",
            "state_dict": prefixed("model.", released(c)) | {"train_acc.total": torch.zeros(())},
        },
        f"Lightning checkpoint under state_dict, prefix model., {RELEASED}",
    ),
    "with a smaller teacher": (
        lambda c: released(c) | prefixed("teacher.", make(3).backbone.state_dict()),
        f"state dict, {RELEASED}",
    ),
    "with a teacher inside": (
        lambda c: c.timm_state_dict() | prefixed("teacher.", OTHER),
        f"state dict, {TIMM}",
    ),
    "with an unused head inside": (
        lambda c: released(c) | {"backbone.fc.weight": torch.zeros(6, 96), "backbone.fc.bias": torch.ones(6)},
        f"state dict, {RELEASED}",
    ),
    "twice the same": (
        lambda c: prefixed("student.", c.timm_state_dict()) | prefixed("teacher.", c.timm_state_dict()),
        f"state dict, prefix student., {TIMM}",
    ),
}
AVERAGED = {
    "timm's": (
        lambda c: {"state_dict": OTHER, "state_dict_ema": c.timm_state_dict()},
        "under state_dict_ema",
        "under state_dict",
    ),
    "of model": (
        lambda c: {"model": OTHER, "model_ema": c.timm_state_dict()},
        "under model_ema",
        "under model",
    ),
    "without counters": (
        lambda c: {"model": OTHER, "ema": {n: v for n, v in c.timm_state_dict().items() if COUNTER not in n}},
        "under ema",
        "under model",
    ),
    "torch's": (
        lambda c: {"model": OTHER, "model_ema": averaged(c)},
        "under model_ema, prefix module.",
        "under model",
    ),
    "torch's under a plain name": (
        lambda c: {"last": OTHER, "shadow": averaged(c)},
        "under shadow, prefix module.",
        "under last",
    ),
    "inside a module": (
        lambda c: prefixed("net.", OTHER) | prefixed("shadow.", averaged(c)),
        ", prefix shadow.module.",
        ", prefix net.",
    ),
    "by prefix": (
        lambda c: {"model": prefixed("net.", OTHER) | prefixed("netEMA.", c.timm_state_dict())},
        "under model, prefix netEMA.",
        "under model, prefix net.",
    ),
    "inside the model": (
        lambda c: OTHER | prefixed("swa.", c.timm_state_dict()),
        ", prefix swa.",
        "",
    ),
    "Lightning's": (
        lambda c: {
            "state_dict": prefixed("net.", c.timm_state_dict()),
            "current_model_state": prefixed("net.", OTHER),
            "averaging_state": {"n_averaged": torch.tensor(3)},
        },
        "under state_dict, prefix net.",
        "under current_model_state, prefix net.",
    ),
}


def _compiled_layer(classifier):
    classifier.backbone.layer1 = torch.compile(classifier.backbone.layer1)
    return classifier.timm_state_dict()


@pytest.mark.parametrize("layout", SAVED)
def test_every_layout_gives_the_same_weights(layout, target, tmp_path):
    make_content, words = SAVED[layout]
    path = tmp_path / "source.pth"
    torch.save(make_content(make(1)), path)
    report = load_checkpoint(path, target)
    assert equal(target, make(1))
    assert (report.format, report.missing) == (words, ())
    assert report.lines()[0] == f"{path}: {words}"


@pytest.mark.parametrize("layout", AVERAGED)
def test_averaged_weights_come_first_and_are_named(layout, target, tmp_path):
    make_content, place, other = AVERAGED[layout]
    path = tmp_path / "source.pth"
    torch.save(make_content(make(1)), path)
    report = load_checkpoint(path, target)
    assert equal(target, make(1))
    place, other = (f"state dict {words}".replace(" ,", ",").rstrip() for words in (place, other))
    assert report.lines()[:2] == [
        f"{path}: {place}, {TIMM}",
        f"averaged weights, taken rather than {other}",
    ]


@pytest.mark.parametrize("key", ["schema", "swapped", "emanation", "aggregated"])
def test_a_name_that_only_looks_like_an_average_is_none(key, origin, target, tmp_path):
    torch.save({"model": OTHER, key: origin.timm_state_dict()}, tmp_path / "source.pth")
    with pytest.raises(InputError, match="fit the model equally well"):
        load_checkpoint(tmp_path / "source.pth", target)


def test_an_average_of_fewer_weights_is_not_taken(origin, target, tmp_path):
    few = {name: value for name, value in OTHER.items() if "running" not in name}
    torch.save({"model": origin.timm_state_dict(), "model_ema": few}, tmp_path / "source.pth")
    assert load_checkpoint(tmp_path / "source.pth", target).format == f"state dict under model, {TIMM}"
    assert equal(target, origin)


AMBIGUOUS = {
    "prefixes": (
        lambda first, second: prefixed("student.", first) | prefixed("teacher.", second),
        "state dict, prefix student.; state dict, prefix teacher.",
    ),
    "keys": (
        lambda first, second: {"encoder_q": first, "encoder_k": prefixed("module.", second)},
        "state dict under encoder_q; state dict under encoder_k, prefix module.",
    ),
    "averages": (
        lambda first, second: {"model": first, "ema": second, "swa": first},
        "state dict under ema; state dict under swa",
    ),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
@pytest.mark.parametrize("strict", [True, False])
def test_weights_that_fit_equally_well_are_refused(case, strict, origin, target, tmp_path):
    make_content, places = AMBIGUOUS[case]
    states = [origin.timm_state_dict(), {**OTHER}]
    if not strict:
        states = [{n: v for n, v in state.items() if not n.startswith("fc.")} for state in states]
    path = tmp_path / "source.pth"
    torch.save(make_content(*states), path)
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, target, strict)
    assert str(caught.value) == (
        f"{path}: weights that differ fit the model equally well: {places}; save one of them alone"
    )
    assert untouched(target)


def test_a_file_that_has_itself_inside(origin, target, tmp_path):
    content = {"model": origin.timm_state_dict()}
    content |= {f"again{i}": content for i in range(50)}
    torch.save(content, tmp_path / "source.pth")
    assert load_checkpoint(tmp_path / "source.pth", target).format == f"state dict under model, {TIMM}"
