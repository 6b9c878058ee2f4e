"""The configuration as types, one file per group, and its checks (no torch)."""
