"""The last lines of the supervisor's log."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from v6fwd.log import escaped

KEPT = 100
"""Lines."""
LENGTH = 500
"""Characters of a line: what clients and containers name themselves is in it."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log. `at` is seconds since 1970."""

    at: float
    level: str
    event: str
    text: str


class Recent:
    """Hears each line of a Log: `log.heard = recent.note`."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.lines: deque[Line] = deque(maxlen=KEPT)
        self.noted = 0
        """How many lines there have been: a change tells that there are new ones."""
        self._now = now

    def note(self, level: str, event: str, text: str) -> None:
        """Keep a line."""
        self.lines.append(Line(self._now(), level, event, escaped(text)[:LENGTH]))
        self.noted += 1
