from __future__ import annotations

import pytest
import torch

from ftc import ClassPartition
from ftc.metrics import head_statistics


def test_norms_and_biases_are_means_over_the_groups(partition):
    head = torch.nn.Linear(4, 6)
    found = head_statistics(head, partition)
    norms = head.weight.detach().double().norm(dim=1)
    for name, ids in (("seen", partition.seen), ("absent", partition.absent)):
        assert found[f"head_weight_norm_{name}"] == pytest.approx(float(norms[list(ids)].mean()), rel=1e-6)
        assert found[f"head_bias_{name}"] == pytest.approx(
            float(head.bias.detach()[list(ids)].mean()), rel=1e-6
        )


def test_what_a_head_does_not_have_is_left_out():
    head = torch.nn.Linear(4, 3, bias=False)
    assert head_statistics(head, ClassPartition(3, [0, 1])).keys() == {"head_weight_norm_seen"}
