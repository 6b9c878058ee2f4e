"""The configuration as types, one file a group, and the line for everything wrong with it (no torch)."""
