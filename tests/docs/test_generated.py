"""Generated pages are what the code says, and the site has every page."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from docs._generate.__main__ import DOCS, pages
from docs._generate.errors import messages, parts


def test_generated_pages_are_in_step_with_the_code():
    for name, text in pages().items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"{name}: run make docs"


def test_messages_keep_their_words_and_lose_their_values():
    source = 'raise InputError(f"data.x={value}: no such {kind[0]}; choose " + "another") from error'
    assert list(messages(source)) == ["data.x=…: no such …; choose another"]
    others = "raise InputError(line)\nraise InputError(f'{a}: {b}')\nraise ValueError('x: y')"
    assert list(messages(others)) == []
    returned = "def line():\n    return f'disk {number}: is full'"
    assert list(messages(returned, returned=True)) == ["disk …: is full"]
    assert list(messages(returned)) == []


def test_a_message_is_told_in_three_parts():
    assert parts("data.x=…: no such …; choose another") == ("data.x=…", "no such …", "choose another")
    assert parts("no mend: here") == ("no mend", "here", "")
    assert parts("give a number") == ("", "give a number", "")


def test_the_index_links_what_its_sidebar_has():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    linked = re.findall(r"^- \[[^]]+\]\(([^)]+)\.(?:md|ipynb)\)", index, flags=re.MULTILINE)
    listed = [
        name
        for block in re.findall(r"```{toctree}(.*?)```", index, flags=re.DOTALL)
        for name in re.findall(r"^[\w/]+$", block, flags=re.MULTILINE)
    ]
    assert linked == listed


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    line = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "trees")]
    built = subprocess.run([*line, str(DOCS), str(tmp_path / "site")], text=True, capture_output=True)
    assert (built.returncode, built.stderr) == (0, "")
    # What a page needs to be read comes from the site itself.
    fetched = r'<(?:link|script|img|iframe)[^>]+(?:href|src)="https?:'
    for page in (tmp_path / "site").glob("**/*.html"):
        assert not re.search(fetched, page.read_text(encoding="utf-8")), page.name
