"""The work of each command, in the file of its name, and the parts and stages of runs."""
