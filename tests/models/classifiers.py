"""Small classifiers with weights that tell them apart, and the ways in which programs save them."""

from __future__ import annotations

import torch

from ftc.models import create_classifier

KWARGS = {"in_chans": 1}
COUNTER = "num_batches_tracked"


def make(seed, num_classes=6, name="test_resnet", **kwargs):
    torch.manual_seed(seed)
    classifier = create_classifier(name, num_classes, kwargs=KWARGS | kwargs).eval()
    with torch.no_grad():
        for tensor in classifier.timm_state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor))
    return classifier


def released(classifier, **more):
    """The paper's released layout."""
    backbone = {f"backbone.{name}": value for name, value in classifier.backbone.state_dict().items()}
    return {**backbone, "head.weight": classifier.head.weight, "head.bias": classifier.head.bias, **more}


def equal(first, second):
    states = first.timm_state_dict(), second.timm_state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def untouched(classifier):
    return equal(classifier, make(2))


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


# What a report calls the two kinds of names.
TIMM, RELEASED = "names of the timm model", "names of backbone and head"
