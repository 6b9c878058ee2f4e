"""What all commands share: Hydra, early checks, errors of one line, sweeps (no torch)."""
