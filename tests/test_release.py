"""What a release must have in step: the version stands in pyproject.toml, and other files follow it."""

from __future__ import annotations

import email
import re
import runpy
import subprocess
import sys
import tarfile
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LICENCES = runpy.run_path(str(ROOT / "docs" / "_generate" / "licences.py"))


def version() -> str:
    """The version of pyproject.toml, from which that of the installed package is made."""
    (found,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    return found


def test_the_citation_has_the_version_and_what_its_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version()
    assert citation["cff-version"] == "1.2.0"
    for work in (citation, citation["preferred-citation"]):
        assert work["title"]
        assert all(person.keys() & {"name", "family-names"} for person in work["authors"])
    assert citation["message"]


def test_the_doctors_sample_has_what_is_declared():
    sample = (ROOT / "docs" / "commands.md").read_text().partition("\nRequirements\n")[2]
    rows, _, extras = sample.partition("\nFolders\n")[0].partition("\n\nExtras\n")
    lines = re.findall(r"^  (\S+) +\S+ +(\S+)$", rows, flags=re.MULTILINE)
    shown = {canonicalize_name(name): Requirement(name + bounds).specifier for name, bounds in lines}
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = map(Requirement, project["dependencies"])
    assert shown == {canonicalize_name(one.name): one.specifier for one in declared}
    names = re.findall(r"^  (\S+)  ", extras, flags=re.MULTILINE)
    assert names == sorted(project["optional-dependencies"])


def test_the_changelog_begins_with_the_version():
    heading = re.search(r"^## (\S+), (.+)$", (ROOT / "docs" / "changelog.md").read_text(), flags=re.MULTILINE)
    number, when = heading.groups()
    assert number == re.sub(r"\.dev\d+$", "", version())
    if ".dev" in version():
        assert when == "unreleased"
    else:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", when)


def test_the_page_of_the_package_index_links_to_no_file(tmp_path):
    line = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    (packed,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(packed) as sdist:
        (name,) = (name for name in sdist.getnames() if re.fullmatch(r"[^/]+/PKG-INFO", name))
        information = email.message_from_bytes(sdist.extractfile(name).read())
    page = information.get_payload(decode=True).decode()
    assert information["Version"] == version()
    assert "\n## " in page
    targets = re.findall(r"\]\(([^)]*)\)|(?:src|href)=[\"']([^\"']*)", page)
    assert [target for pair in targets for target in pair if target and not target.startswith("http")] == []


def test_the_page_of_licences_names_every_requirement():
    page = (ROOT / "docs" / "licences.md").read_text()
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    needed = {canonicalize_name(Requirement(line).name) for line in lines} - {"ftc"}
    assert {name for name in needed if f"\n| {name} | " not in page} == set()


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("MIT OR BSD-3-Clause AND GPL-3.0-only", True),
        ("(MIT OR Apache-2.0) AND Zlib", True),
        ("(MIT OR GPL-3.0-only) AND Zlib", False),
        ("GPL-3.0-only AND (MIT OR Zlib)", False),
        ("other", False),
        ("", False),
    ],
)
def test_a_licence_is_allowed_where_a_known_one_meets_it(expression, allowed):
    assert LICENCES["allowed"](expression) is allowed
