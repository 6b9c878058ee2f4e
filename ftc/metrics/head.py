"""The head's weights and biases over seen and absent classes."""

from __future__ import annotations

from torch import nn
from torch.distributed.tensor import DTensor

from ftc.partition import ClassPartition


def head_statistics(head: nn.Linear, partition: ClassPartition) -> dict[str, float]:
    """Mean L2 norm of the head's rows and mean bias, over S and over U (the paper, on weight norms).

    Under FSDP all processes call it together, since it gathers the weights.

    Args:
        head: a linear layer with weights (C, D), one row for each class.
        partition: seen, absent and other columns.

    Returns:
        ``head_weight_norm_seen``, ``head_weight_norm_absent`` and, where the head has biases,
        ``head_bias_seen``, ``head_bias_absent``; nothing for a group without columns.
    """
    weight, bias = (p.full_tensor() if isinstance(p, DTensor) else p for p in (head.weight, head.bias))
    norms = weight.detach().float().norm(dim=1)
    result: dict[str, float] = {}
    for name, ids in (("seen", partition.seen), ("absent", partition.absent)):
        if ids:
            result[f"head_weight_norm_{name}"] = float(norms[list(ids)].mean())
            if bias is not None:
                result[f"head_bias_{name}"] = float(bias.detach()[list(ids)].mean())
    return result
