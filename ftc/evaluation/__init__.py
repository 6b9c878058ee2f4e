"""What an evaluation of a model says: pure functions of numbers per sample, without any configuration."""
