"""README.md tells the very lines that the servers of this ring were started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.servers import CONFIG_LINES

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.parametrize("line", [line for lines in CONFIG_LINES.values() for line in lines])
def test_the_readme_has_the_line(line: str) -> None:
    assert line in README
