"""``python -m ftc.prepare``: lay out a benchmark's images and lists on disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ftc import __version__
from ftc.benchmarks.catalogue import BENCHMARKS
from ftc.benchmarks.prepare import prepare
from ftc.cli.terminal import Parser, fail, interrupted
from ftc.errors import InputError
from ftc.files import printable

_EXAMPLES = """\
examples:
  python -m ftc.prepare office_home --to data
  python -m ftc.prepare office_home --to data --from OfficeHomeDataset.zip --lists CLONE
  python -m ftc.prepare vtab --task dtd --to data
  python -m ftc.prepare emoji --to data --from FOLDER_OF_TGZ
  python -m ftc.prepare iwildcam --to data --from iwildcam_v2.0
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="python -m ftc.prepare",
        description="Lay out a benchmark's images and lists on disk, whole or not at all.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ftc {__version__}")
    parser.add_argument("benchmark", choices=list(BENCHMARKS), help="what to prepare")
    parser.add_argument("--to", type=Path, default=Path("data"), help="data root (default: data)")
    parser.add_argument(
        "--from",
        dest="original",
        type=Path,
        help="folder or archive of the original; by default it is downloaded from the Hugging Face hub",
    )
    parser.add_argument(
        "--lists",
        type=Path,
        metavar="CLONE",
        help="take the official lists from this clone of the paper's released repository; by default our own "
        "are drawn: 70/30 of every class for office_home, 80/20 for imagenet_r and imagenet_sketch; "
        "emoji has no official ones",
    )
    parser.add_argument(
        "--groups",
        metavar="PATTERN",
        help="images that our own lists keep on one side: a regular expression on their paths, or a file of "
        "lines 'PATH GROUP'",
    )
    tasks = ", ".join(BENCHMARKS["vtab"].tasks)
    parser.add_argument("--task", help=f"task of vtab: {tasks}")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: print one line on the result, or print one on what is wrong and exit with 2."""
    given = parser().parse_args(arguments)
    try:
        said = prepare(given.benchmark, given.to, given.original, given.lists, given.task, given.groups)
        print(printable(said))
    except (InputError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        interrupted("nothing is laid out")


if __name__ == "__main__":
    main()
