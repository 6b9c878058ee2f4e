"""The one error type for bad input, and the line about a package that is missing."""

from importlib.util import find_spec


class InputError(ValueError):
    """Bad input. The message is one line that names the key, file or value and the mend."""


def require(package: str, extra: str, subject: str) -> None:
    """Refuse to go on without a package that only an extra of ftc installs.

    Args:
        package: name of the package, as it is imported.
        extra: the extra that has it.
        subject: key, value or feature that needs it.

    Raises:
        InputError: the package is not installed.
    """
    try:
        missing = find_spec(package) is None
    except ModuleNotFoundError:  # the package that it is a part of
        missing = True
    if missing:
        raise InputError(f"{subject}: needs {package}, which is not installed; pip install 'ftc[{extra}]'")
