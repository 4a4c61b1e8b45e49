"""For tests that type what a page says."""

from __future__ import annotations

import re
from pathlib import Path


def lines(page: Path, heading: str) -> list[str]:
    """The lines of the first block below a heading, as they stand there."""
    section = page.read_text().partition(f"## {heading}\n")[2]
    block = re.search(r"(?:^    .*\n)+", section, re.MULTILINE)
    assert block is not None
    return [line.removeprefix("    ") for line in block[0].splitlines()]


def commands(page: Path, heading: str) -> list[str]:
    """Its commands, one each."""
    typed = (line.partition("#")[0] for line in lines(page, heading))
    return [word.strip() for line in typed for word in line.split("&&")]
