"""Build objects from the checked configuration: data, model, calibrators, loggers, trainers."""
