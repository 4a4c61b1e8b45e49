"""Finds the lines of a TOML file that its keys and tables stand in: tomllib does not tell. Pure.

Looks at the beginnings of lines alone, so it is for files that tomllib has read; what stands in
strings of several lines is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

_HEADER_RE = re.compile(r"\s*(\[\[?)([^\]#=]+)\]")
_KEY_RE = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_-]+)\s*=""")
_QUOTES_RE = re.compile(r"(\"\"\"|''')")


@dataclass(frozen=True, slots=True)
class TableLines:
    """A table's own line, 0 for the top of the file, and those of its keys."""

    line: int
    keys: dict[str, int] = field(default_factory=dict)


Lines = dict[tuple[str, int], TableLines]
"""By header, as in `[[forward]]` or "", and by its number among those of that header."""


def find_lines(text: str) -> Lines:
    """Return where everything is; lines are counted from 1."""
    table = TableLines(0)
    found: Lines = {("", 1): table}
    counts: Counter[str] = Counter()
    for number, line in _outside_of_strings(text):
        header, key = _HEADER_RE.match(line), _KEY_RE.match(line)
        if key:
            table.keys.setdefault(key[1].strip("\"'"), number)
        elif header:
            name = re.sub("[ \t\"']", "", header[2])
            name = f"[[{name}]]" if header[1] == "[[" else f"[{name}]"
            counts[name] += 1
            found[name, counts[name]] = table = TableLines(number)
    return found


def _outside_of_strings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that do not begin within a string of several lines."""
    closing = ""
    for number, line in enumerate(text.split("\n"), 1):
        if not closing:
            yield number, line
        for quotes in _QUOTES_RE.findall(line):
            closing = "" if quotes == closing else closing or quotes
