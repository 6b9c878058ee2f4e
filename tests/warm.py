"""What takes a process of the digits experiment long to import and read; a fork server loads it once."""

import wandb  # noqa: F401

import ftc.runs.train  # noqa: F401
from ftc.benchmarks.digits import mnist, uci_digits

mnist("test")
uci_digits()
