"""Stands first on PATH under a program's name, and asks `tests.docs.walk` what to do in its place."""

import os
import sys
from multiprocessing.connection import Client
from pathlib import Path


def main() -> None:
    """Send the program's name and arguments, folder and environment; run or print what is answered."""
    with Client(os.environ["PAGES_SOCKET"]) as connection:
        connection.send((tuple(sys.argv[1:]), str(Path.cwd()), dict(os.environ)))
        answer = connection.recv()
    if "words" in answer:
        os.execvpe(answer["words"][0], answer["words"], answer["environment"])
    sys.stdout.write(answer["out"])
    sys.stderr.write(answer["err"])
    sys.exit(answer["status"])


if __name__ == "__main__":
    main()
