"""Every page is followed: its blocks are executed as they stand, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, Block, blocks_of
from tests.docs.stand_ins import StandIns
from tests.docs.walk import Walk, is_executed

PAGES_TO_FOLLOW = [page for page in PAGES if any(is_executed(block) for block in blocks_of(page))]


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("things"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", PAGES_TO_FOLLOW, ids=[page.relative_to(ROOT).as_posix() for page in PAGES_TO_FOLLOW]
)
def test_a_page_can_be_followed(page: Path, things: StandIns, tmp_path: Path):
    walk = Walk(tmp_path, things)
    walk.along(blocks_of(page))
    print("\n".join(walk.said))
    assert not walk.failures, "\n\n".join(walk.failures)


@pytest.mark.slow
def test_what_fails_is_told_with_its_place(things: StandIns, tmp_path: Path):
    walk = Walk(tmp_path, things)
    walk.along(
        [
            Block("a.md", 1, "python", "# x.py\nraise SystemExit(3)\n"),
            Block("a.md", 5, "bash", "python x.py\ntouch reached\n"),
            Block("a.md", 9, "bash", "pip install ftc\npython -m ftc.report outputs/absent\n"),
        ]
    )
    assert [failure.split("\n")[0] for failure in walk.failures] == [
        "a.md:1: status 3",
        "a.md:5: status 3",
        "a.md:9: status 2",
    ]
    assert "outputs/absent: no such folder" in walk.failures[2]
    assert walk.said == ["a.md:9: pip install ftc: not run: installs packages"]
    assert not (tmp_path / "reached").exists()
