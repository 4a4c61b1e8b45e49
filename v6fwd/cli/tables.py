"""Aligned columns, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from v6fwd.log import escaped

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> str:
    """Rows under a head, two spaces between columns. `right`: those aligned right.

    What is not printable in a cell is escaped.
    """
    rows = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if name in right.split() else cell.ljust(width)
            for name, cell, width in zip(head, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def size(count: int) -> str:
    """Bytes with three digits that count: 999 B, 1.50 kB, 20.0 MB."""
    if count < 1000:
        return f"{count} B"
    number, unit = float(count), 0
    while number >= 999.5 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """The two largest units: 0.5 s, 59 s, 2 min 5 s, 3 h 0 min, 4 d 2 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def moment(stamp: float) -> str:
    """Date and time in the local time zone; `stamp` is seconds since the epoch."""
    return datetime.fromtimestamp(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")
