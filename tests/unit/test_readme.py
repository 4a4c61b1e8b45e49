"""README.md is short, and docs/modes.md has the very lines that tests configure servers with."""

from __future__ import annotations

import pytest

from tests.support.paths import ROOT
from tests.support.servers import FIELD_LINES, PROXY_LINES

README = (ROOT / "README.md").read_text()
MODES = (ROOT / "docs" / "modes.md").read_text()

LINES = [line for table in (PROXY_LINES, FIELD_LINES) for lines in table.values() for line in lines]


@pytest.mark.parametrize("line", LINES)
def test_the_page_has_the_line(line: str) -> None:
    assert line in MODES


def test_the_readme_is_for_somebody_in_a_hurry() -> None:
    assert len(README.encode()) < 10_000
    assert [line for line in README.splitlines() if len(line) > 120] == []
    assert "172.17.0.1" in README.split("## ")[0]
