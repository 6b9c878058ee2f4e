"""``python -m ftc.doctor``: what a bug report needs: versions, devices, folders, settings."""

from __future__ import annotations

import argparse

import ftc
from ftc.cli.terminal import Parser, interrupted, reader_has_gone, show_what_it_can
from ftc.machine.examination import examined


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="python -m ftc.doctor",
        description="Print what a bug report needs: versions, devices, folders, settings. Nothing is "
        "written, nobody is asked over the network, keys and passwords are not shown. Exit status 1 where a "
        "requirement of ftc does not hold.",
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument("--version", action="version", version=f"ftc {ftc.__version__}")
    return parser


def main() -> None:
    """Run the command line."""
    given = parser().parse_args()
    show_what_it_can()
    try:
        examination = examined()
        print(examination.json() if given.json else examination.text(), flush=True)
    except BrokenPipeError:
        reader_has_gone()
    except KeyboardInterrupt:
        interrupted("nothing is written")
    raise SystemExit(0 if examination.holds else 1)


if __name__ == "__main__":
    main()
