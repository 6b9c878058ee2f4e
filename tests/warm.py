"""What takes a command long to import and read; a server that forks commands loads it once."""

import gc

import matplotlib.figure  # noqa: F401
import wandb  # noqa: F401

import ftc.assembly.loggers
import ftc.runs.calibrate
import ftc.runs.compare
import ftc.runs.deploy
import ftc.runs.evaluate
import ftc.runs.predict
import ftc.runs.train  # noqa: F401
from ftc.benchmarks.digits import mnist, uci_digits

mnist("test")
uci_digits()

# A collection in a forked command would look at every object of these, and so copy every page.
gc.freeze()
