"""Everything that knows a benchmark by name: its origin, its layout on disk and its readers."""
