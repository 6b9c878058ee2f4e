"""Tests run two files at once, so each process has one thread: set before torch is imported."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
