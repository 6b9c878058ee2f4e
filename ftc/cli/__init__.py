"""The part that all commands share: Hydra, early checks, one-line errors, sweeps (no torch)."""
