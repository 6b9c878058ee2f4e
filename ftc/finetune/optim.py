"""timm's optimisers and schedules, with separate learning rates for head and backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from ftc.errors import InputError


def build_optimizer(
    parameters: Mapping[str, list[nn.Parameter]],
    name: str,
    lr: float,
    backbone_lr_scale: float = 0.1,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    layer_decay: float | None = None,
    kwargs: dict[str, Any] | None = None,
    layers: Mapping[nn.Parameter, int] | None = None,
) -> Optimizer:
    """One of timm's optimisers over groups of parameters.

    timm exempts biases and norms from weight decay when it is handed a model; handed groups, it decays every
    parameter, as the released code does (docs/definitions.md, "Benchmarks and recipe").

    Args:
        parameters: by group, see `ftc.finetune.Method.parameter_groups`; empty groups are left out.
        name: timm's name of the optimiser; ``sgd`` is SGD with Nesterov momentum.
        lr: learning rate of every group but the backbone.
        backbone_lr_scale: the learning rate of the group ``backbone`` is ``lr`` times this.
        weight_decay: weight decay of every parameter.
        momentum: momentum, for optimisers that have one.
        layer_decay: the learning rate of each layer of ``backbone`` is that of the next one times this, the
            head being the last; None for one rate.
        kwargs: further arguments of the optimiser.
        layers: the depth of parameters, from 0, see `ftc.models.Classifier.layers`.

    Raises:
        InputError: no such optimiser, or an argument it does not take.
    """
    scales = {"backbone": backbone_lr_scale}
    deepest = max(layers.values()) if layers else 0
    rates: dict[float, list[nn.Parameter]] = {}
    for group, members in parameters.items():
        for parameter in members:
            rate = lr * scales.get(group, 1.0)
            if group == "backbone" and layer_decay is not None and layers is not None:
                rate *= layer_decay ** (deepest - layers[parameter])
            rates.setdefault(rate, []).append(parameter)
    groups = [{"params": members, "lr": rate} for rate, members in rates.items()]
    if name.lower() not in list_optimizers():
        raise InputError(f"optimizer.name={name}: choose from {', '.join(list_optimizers())}")
    try:
        return create_optimizer_v2(
            groups, opt=name, lr=lr, weight_decay=weight_decay, momentum=momentum, **(kwargs or {})
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer.name={name}: {error}") from error


def build_scheduler(
    optimizer: Optimizer,
    iterations: int,
    name: str = "cosine",
    warmup_iterations: int = 0,
    min_lr: float = 0.0,
    kwargs: dict[str, Any] | None = None,
) -> Scheduler:
    """One of timm's schedules, stepped by iteration.

    Args:
        optimizer: its groups' learning rates are the base rates.
        iterations: length of the whole training.
        name: timm's name of the schedule.
        warmup_iterations: length of the linear warm-up from timm's ``warmup_lr``.
        min_lr: last learning rate of cosine and similar schedules.
        kwargs: further arguments of `timm.scheduler.create_scheduler_v2`, whose "epochs" are iterations.

    Raises:
        InputError: no such schedule, an argument it does not take, or one that cannot step by iteration.
    """
    try:
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=name,
            num_epochs=iterations,
            warmup_epochs=warmup_iterations,
            min_lr=min_lr,
            step_on_epochs=False,
            updates_per_epoch=1,
            **(kwargs or {}),
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(f"scheduler.name={name}: {error}") from error
    if scheduler is None:
        raise InputError(f"scheduler.name={name}: timm has no such schedule; cosine is one")
    return scheduler
