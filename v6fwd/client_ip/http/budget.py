"""How long a reader may work on one connection before the others get a turn.

Bytes say little about work: a MB of plain body costs nothing, a MB of heads that all differ
a tenth of a second. So a reader looks at the clock between the parts of what it reads.
"""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since some moment."""

TURN = 0.001
"""Seconds of work in a row. With four such connections another waits 4 ms; a part costs at most
half a turn, a head of a hundred fields."""


class TimeBudget:
    """The time of one call; many readers may share it. Without a clock it is never over."""

    __slots__ = ("_clock", "_until")

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock
        self._until = 0.0

    def begin(self) -> None:
        """A call begins."""
        if self._clock is not None:
            self._until = self._clock() + TURN

    def is_over(self) -> bool:
        """Whether the call has had its time."""
        return self._clock is not None and self._clock() >= self._until


UNBOUNDED = TimeBudget()
"""For readers that nobody waits for."""
