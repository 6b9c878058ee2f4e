"""timm's optimisers and schedules, with separate learning rates for head and backbone."""

from __future__ import annotations

from typing import Any

from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch.optim import Optimizer

from ftc.errors import InputError
from ftc.models import Classifier


def build_optimizer(
    classifier: Classifier,
    name: str,
    lr: float,
    backbone_lr_scale: float = 0.1,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    kwargs: dict[str, Any] | None = None,
) -> Optimizer:
    """One of timm's optimisers over two parameter groups, backbone and head.

    timm exempts biases and norms from weight decay when it is handed a model; handed groups, it decays every
    parameter, as the released code does (PROTOCOL: "Benchmarks and recipe").

    Args:
        classifier: what is trained.
        name: timm's name; there ``sgd`` is SGD with Nesterov momentum.
        lr: learning rate of the head.
        backbone_lr_scale: the backbone's learning rate is ``lr`` times this.
        weight_decay: on every parameter.
        momentum: where the optimiser has one.
        kwargs: further arguments of the optimiser.

    Raises:
        InputError: no such optimiser, or an argument it does not take.
    """
    groups = [
        {"params": list(classifier.backbone.parameters()), "lr": lr * backbone_lr_scale},
        {"params": list(classifier.head.parameters()), "lr": lr},
    ]
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
        name: timm's name.
        warmup_iterations: linear warm-up from timm's ``warmup_lr``.
        min_lr: where cosine and its like end.
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
