"""How long to wait before a worker that died is started again."""

from __future__ import annotations

from collections.abc import Callable

STEADY = 30.0
"""Seconds of life after which a death is an accident of its own, and no crash loop."""
FIRST, LONGEST = 1.0, 30.0
"""Seconds: the first wait in a crash loop, and the last; each is twice the one before."""


class Backoff:
    """The first start again is at once; deaths in a row wait 1 s, 2 s, 4 s ... 30 s."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        self._next = 0.0

    def started(self) -> None:
        """The worker lives, from now on."""
        self._started = self._clock()

    def delay(self) -> float:
        """The worker has died: seconds until the next one may start."""
        if self._clock() - self._started >= STEADY:
            self._next = 0.0
        delay, self._next = self._next, min(LONGEST, self._next * 2 or FIRST)
        return delay
