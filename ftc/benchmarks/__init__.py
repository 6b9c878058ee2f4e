"""Everything that knows a benchmark by name: where it comes from, how it lies on disk, what reads it."""
