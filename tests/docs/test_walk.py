"""Every page is followed: its blocks are executed as they stand, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, blocks_of
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
