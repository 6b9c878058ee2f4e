"""The evaluation of a model, by pure functions of numbers per sample, without any configuration."""
