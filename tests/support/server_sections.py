"""For tests of docs/servers.md: its sections, each about one server."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.paths import ROOT

PAGE = (ROOT / "docs/servers.md").read_text()


@dataclass(frozen=True)
class Section:
    """What the page says of a server."""

    title: str
    mode: str
    lines: tuple[str, ...]
    before: str
    after: str


def read_section(text: str) -> Section:
    """A section: its title, the first mode it names, its indented lines, and its table."""
    title, _, body = text.partition("\n")
    lines = tuple(re.findall(r"^ {4}(\S.*)$", body, re.MULTILINE))
    mode = re.search(r"Mode `([\w-]+)`", body)
    shown = dict(re.findall(r"^\| (before|after) \| `(.*)` \|$", body, re.MULTILINE))
    assert mode is not None, title
    assert lines, title
    return Section(title, mode[1], lines, shown["before"], shown["after"])


TEXTS = {text.partition("\n")[0]: text for text in PAGE.split("\n## ")[1:]}
