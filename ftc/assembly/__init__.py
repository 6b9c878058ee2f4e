"""From the checked configuration to objects: data, model, calibrators, loggers, trainers."""
