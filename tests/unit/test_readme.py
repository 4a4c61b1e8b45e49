"""README.md has the very lines that the tests configure real servers with."""

from __future__ import annotations

import pytest

from tests.support.paths import ROOT
from tests.support.servers import FIELD_LINES, PROXY_LINES

README = (ROOT / "README.md").read_text()


LINES = [line for table in (PROXY_LINES, FIELD_LINES) for lines in table.values() for line in lines]


@pytest.mark.parametrize("line", LINES)
def test_the_readme_has_the_line(line: str) -> None:
    assert line in README
