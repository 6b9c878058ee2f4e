"""Declared requirements against what is installed: distributions that exist only as metadata."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ftc.machine.packages import installation


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Makes a distribution: its name, version, extras, requirements; and a folder for its code."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def make(
        name: str, version: str = "1.0", extras: tuple[str, ...] = (), needs: tuple[str, ...] = ()
    ) -> Path:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        lines = [f"Provides-Extra: {extra}" for extra in extras] + [
            f"Requires-Dist: {need}" for need in needs
        ]
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(head + "".join(f"{line}\n" for line in lines))
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("need", "holds"),
    [
        ("low_one", True),
        ("low_one>=0.9,<2", True),
        ("low_one>=1.0.1", False),
        ("low-one!=1.0rc1", True),
        ("early>=2", False),
        ("early>=2.0.dev0", True),
        ("strange>=1", False),
        ("nowhere_at_all", False),
    ],
)
def test_versions_are_held_against_ranges(distribution, need, holds):
    distribution("low_one")
    distribution("early", "2.0rc1+cu130")
    distribution("strange", "as-of-today")
    folder = distribution("top_one", needs=(need,))
    found = installation("top_one", folder)
    (requirement,) = found.requirements
    assert (requirement.holds, found.holds) == (holds, holds)
    assert need.startswith(requirement.name)
    assert requirement.mend.startswith(f"pip install '{requirement.name}")


def test_extras_and_extras_of_extras_are_followed(distribution):
    distribution("low_one", extras=("more",), needs=("nowhere_at_all>=3; extra == 'more'",))
    needs = (
        "low_one",
        "elsewhere; python_version < '3'",
        "low_one[more]; extra == 'rich'",
        "low_one>=1; extra == 'plain'",
        "top_one[plain,rich]; extra == 'all'",
    )
    found = installation("top_one", distribution("top_one", extras=("all", "plain", "rich"), needs=needs))
    assert found.holds
    assert [requirement.name for requirement in found.requirements] == ["low_one"]
    missing = {extra.name: [requirement.name for requirement in extra.missing] for extra in found.extras}
    assert missing == {"all": ["nowhere_at_all"], "plain": [], "rich": ["nowhere_at_all"]}
    assert {extra.mend for extra in found.extras} == {f"pip install 'top_one[{name}]'" for name in missing}


def test_what_is_not_installed_is_no_error(tmp_path):
    found = installation("nowhere_at_all", tmp_path)
    assert (found.version, found.installed, found.commit, found.holds) == (None, None, None, False)


def test_an_editable_installation_is_told_from_the_code_that_runs(distribution, tmp_path):
    folder = distribution("top_one")
    assert installation("top_one", folder).installed == str(folder)
    origin = {"url": "file:///some%20where", "dir_info": {"editable": True}}
    (tmp_path / "top_one-1.0.dist-info" / "direct_url.json").write_text(json.dumps(origin))
    found = installation("top_one", folder)
    assert (found.editable, found.installed, found.folder) == (True, "/some where/top_one", str(folder))


def test_the_commit_is_that_of_kept_files_only(distribution, tmp_path, monkeypatch):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = distribution("top_one")

    def git(*arguments: str) -> str:
        me = ("-c", "user.name=me", "-c", "user.email=me@here")
        line = ["git", "-C", str(tmp_path), *me, *arguments]
        return subprocess.run(line, check=True, text=True, capture_output=True).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "nothing")
    assert installation("top_one", folder).commit is None
    git("add", "top_one")
    git("commit", "-q", "-m", "all")
    commit = git("rev-parse", "--short", "HEAD")
    assert installation("top_one", folder).commit == commit
    (folder / "__init__.py").write_text("1")
    assert installation("top_one", folder).commit == f"{commit}-dirty"
