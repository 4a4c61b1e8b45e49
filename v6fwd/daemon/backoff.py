"""Computes the delay before a dead worker is restarted."""

from __future__ import annotations

from collections.abc import Callable

STEADY = 30.0
"""Seconds of life after which a death no longer counts towards a crash loop."""
FIRST, LONGEST = 1.0, 30.0
"""Seconds: the first and the longest delay in a crash loop; each is twice the one before."""


class Backoff:
    """The first restart is immediate; deaths in a row wait 1 s, 2 s, 4 s ... 30 s."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        self._next = 0.0

    def started(self) -> None:
        """Note that the worker has started."""
        self._started = self._clock()

    def delay(self) -> float:
        """Return the seconds to wait after the worker's death."""
        if self._clock() - self._started >= STEADY:
            self._next = 0.0
        delay, self._next = self._next, min(LONGEST, self._next * 2 or FIRST)
        return delay
