"""Fine-tuning: methods, the Lightning module that trains by one, optimisers and schedules."""

from ftc.finetune.averaging import LOLSGD, LiNeS, WiSEFT
from ftc.finetune.lora import LoRA
from ftc.finetune.losses import L2SP, BalancedSoftmax, LwF, SeenSoftmax
from ftc.finetune.method import Method, Task
from ftc.finetune.methods import LPFT, BitFit, FrozenHead, Full, LinearProbe, OracleAll, Rehearsal
from ftc.finetune.module import FineTuneModule
from ftc.finetune.optim import build_optimizer, build_scheduler

__all__ = [
    "L2SP",
    "LOLSGD",
    "LPFT",
    "BalancedSoftmax",
    "BitFit",
    "FineTuneModule",
    "FrozenHead",
    "Full",
    "LiNeS",
    "LinearProbe",
    "LoRA",
    "LwF",
    "Method",
    "OracleAll",
    "Rehearsal",
    "SeenSoftmax",
    "Task",
    "WiSEFT",
    "build_optimizer",
    "build_scheduler",
]
