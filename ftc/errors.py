"""The one error type for bad input."""


class InputError(ValueError):
    """Bad input. The message is one line that names the key, file or value and the mend."""
