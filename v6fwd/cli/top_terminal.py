"""Keys of a terminal, as they are pressed."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_KEY_RE = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|.", re.DOTALL)
"""The sequence of a special key (ECMA-48, 5.4), or one character."""


@contextmanager
def raw_keys() -> Iterator[int]:
    """Have standard input deliver keys at once, unechoed; give its descriptor.

    SIGTERM ends with SystemExit meanwhile, so that the terminal is left as it was.
    """
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    handler = signal.signal(signal.SIGTERM, _end)
    try:
        tty.setcbreak(fd)
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, handler)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def keys(fd: int, seconds: float) -> list[str] | None:
    """The keys that were pressed within some seconds; None: the terminal is gone."""
    readable, _, _ = select.select([fd], [], [], max(0.0, seconds))
    if not readable:
        return []
    try:
        data = os.read(fd, 1024)
    except OSError:  # EIO: the terminal hung up
        return None
    return split(data.decode("utf-8", "ignore")) if data else None


def split(text: str) -> list[str]:
    """What was typed, key by key."""
    return _KEY_RE.findall(text)
