"""Steps over many complete chunks at a time.

A plain chunk is strict, has data and no extensions. One at a time in Python, chunks of one byte
cost 150 ms of CPU per MB. Here no work is done per chunk: chunks of equal size are compared column
by column (0.4 ms per MB), small ones of any size match one pattern (2.3 ms per MB, most of it
branches that the processor predicts wrongly). The native scanner, where it was built, takes what
both take in 0.4 ms per MB. Whatever these steps do not take is left to ChunkReader, which judges
every chunk alike.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from v6fwd.model.lean import NamedTuple

SMALL = 256
"""Chunks below this size match the pattern; from here on one step per chunk is cheap enough."""

_WINDOW = 16 * 1024
"""Bytes given to the pattern at once: it takes memory for each chunk until it ends."""
_UNROLLED = 8
"""Chunks per turn of the pattern's loop."""
_DOTS = 5
"""Bytes from which on a count is faster than as many dots."""
EVEN_FROM = 8
"""Equal chunks in a row that are worth a comparison of columns."""
_FIRST_STEP = 64
_STEP_GROWTH = 4
"""Chunks compared first, and how much that grows: little is wasted where the sizes change."""

_LINE_RE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")


class Form(NamedTuple):
    """How a chunk is written around its data."""

    line: bytes
    close: bytes


def plain_end_by_pattern(data: bytes, at: int) -> int:
    """Return the end of the plain chunks that are complete at data[at:]; `at` if there are none."""
    end = len(data)
    while (line := _LINE_RE.match(data, at)) is not None:
        size = int(line[1], 16)
        period = line.end() - at + size + 2
        count = (end - at) // period
        if not size or not count:
            return at
        found = even_end(data, at, size, Form(line[0], b"\r\n"))
        if found == at and size < SMALL:
            found = _small_end(data, at)
        if found == at:
            found = at + period
            if not data.startswith(b"\r\n", found - 2):
                return at
        at = found
    return at


def _small_end(data: bytes, at: int) -> int:
    """The end of the small chunks of any size, as far as the patterns take them."""
    for pattern in _small_chunks():
        found = pattern.match(data, at, at + _WINDOW)
        if found is not None and found.end() > at:
            return found.end()
    return at


def even_end(data: bytes, at: int, size: int, form: Form) -> int:
    """The end of chunks of `size` bytes in one form; `at` if they are few.

    A run is worth a comparison only if the chunk EVEN_FROM places on has the same line.
    """
    line, close = form
    period = len(line) + size + len(close)
    left = (len(data) - at) // period
    if left < EVEN_FROM or not data.startswith(line, at + (EVEN_FROM - 1) * period):
        return at
    columns = list(enumerate(line)) + list(enumerate(close, period - len(close)))
    end = at
    step = _FIRST_STEP
    while left:
        step = min(step, left)
        same = _same(data, end, columns, period, step)
        end += same * period
        if same < step:
            break
        left -= step
        step *= _STEP_GROWTH
    return end


def rewrite(data: bytes, size: int, old: Form, new: Form) -> bytes:
    """Write the chunks that `data` consists of, all of `size` bytes and one form, in another."""
    from_, to = len(old.line) + size + len(old.close), len(new.line) + size + len(new.close)
    count = len(data) // from_
    out = bytearray((new.line + bytes(size) + new.close) * count)
    for column in range(size):
        out[len(new.line) + column :: to] = data[len(old.line) + column :: from_]
    return bytes(out)


def _same(data: bytes, at: int, columns: list[tuple[int, int]], period: int, count: int) -> int:
    """Of `count` chunks at data[at:], how many from the first have these bytes there."""
    for offset, number in columns:
        byte = bytes((number,))
        start = at + offset
        column = data[start : start + (count - 1) * period + 1 : period]
        if column != byte * count:
            count -= len(column.lstrip(byte))
            if not count:
                break
    return count


@functools.cache  # 8 ms to compile, only for chunked bodies
def _small_chunks() -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Patterns of any number of plain chunks: of 1 to 15 bytes without zeros, and of 1 to 255.

    Branches differ in their first byte, except for those with zeros, so a match hardly backtracks.
    The first pattern has no branches for zeros or second digits, and enters its loop seldom. In it
    a letter has a branch for each case, since a set takes longer to compare than a byte.
    """
    sizes = [*(b"%x" % size for size in range(1, 16)), *(b"%X" % size for size in range(10, 16))]
    one = b"|".join(size + _data(int(size, 16)) for size in sizes)
    any_ = b"|".join(
        _digit(high) + b"(?:" + _data(high) + b"|" + _low_digits(high) + b")"
        for high in range(1, 16)
    )
    zeros = b"00{0,12}(?:" + any_ + b")|" + b"0" * 14 + b"(?:" + one + b")"
    each = b"(?:" + one + b")"
    return (
        re.compile(b"(?s:(?:" + each * _UNROLLED + b")*" + each + b"*)"),
        re.compile(b"(?s:" + zeros + b"|" + any_ + b")*"),
    )


def _low_digits(high: int) -> bytes:
    return b"|".join(_digit(low) + _data(16 * high + low) for low in range(16))


def _digit(value: int) -> bytes:
    digit = b"%x" % value
    return b"[" + digit + digit.upper() + b"]" if digit.isalpha() else digit


def _data(size: int) -> bytes:
    """The rest of a chunk behind its size.

    A possessive count of one byte keeps no place to resume at, so it has no part in gh-106052 (see
    syntax) and takes the same time for each size. A few dots are faster.
    """
    return rb"\r\n" + (b"." * size if size < _DOTS else b".{%d}+" % size) + rb"\r\n"


def scanner() -> Callable[[bytes, int], int]:
    """The fastest `plain_end` that there is here."""
    try:
        from v6fwd.client_ip.http._scan import plain_end
    except ImportError:  # it has not been built
        return plain_end_by_pattern
    return plain_end


plain_end = scanner()
