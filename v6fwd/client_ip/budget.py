"""Limits how long a reader works on one connection before others get a turn.

The number of bytes does not tell the work: a MB of plain body costs nothing, a MB of heads that
all differ costs 50 ms. So readers check the clock between heads, chunks and messages.
"""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""Returns a monotonic time in seconds."""

TURN = 0.0005
"""Seconds of work per turn. The largest step, a head with a hundred fields, takes about 0.1 ms."""


class TimeBudget:
    """The time budget of one call; readers may share it. Without a clock it is unlimited."""

    __slots__ = ("_clock", "_until")

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock
        self._until = 0.0

    def begin(self) -> None:
        """Start the time of a call."""
        if self._clock is not None:
            self._until = self._clock() + TURN

    def is_over(self) -> bool:
        """Whether the time is used up."""
        return self._clock is not None and self._clock() >= self._until


UNBOUNDED = TimeBudget()
"""For readers without a time limit."""
