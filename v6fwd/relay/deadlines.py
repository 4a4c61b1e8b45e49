"""Time limits that are all equally long, so that the order of arrival is the order of expiry."""

from __future__ import annotations

from v6fwd.model.lean import TYPE_CHECKING, Protocol
from v6fwd.relay.reactor import Reactor

if TYPE_CHECKING:
    import asyncio


class Expirable(Protocol):
    """Whoever has a time limit."""

    def expired(self) -> None:
        """The time is over."""

    def on_exception(self, error: Exception) -> None:
        """Give up after an exception that nobody expected."""


class Deadlines:
    """Calls `item.expired()` once `seconds` have passed since `add(item)`, unless discarded.

    One timer serves all items. A limit of 0 seconds means none.
    """

    def __init__(self, reactor: Reactor, seconds: float) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._due: dict[Expirable, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, item: Expirable) -> bool:
        return item in self._due

    def add(self, item: Expirable) -> None:
        """Start the clock of `item`."""
        if not self._seconds:
            return
        self._due.pop(item, None)
        self._due[item] = self._reactor.clock() + self._seconds
        if self._timer is None:
            self._arm(self._seconds)

    def discard(self, item: Expirable) -> None:
        """Stop the clock of `item`, if it runs."""
        self._due.pop(item, None)

    def close(self) -> None:
        """Forget all items and the timer."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, delay: float) -> None:
        self._timer = self._reactor.loop.call_later(delay, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._reactor.clock()
        expired = []
        for item, due in self._due.items():
            if due > now:
                break
            expired.append(item)
        for item in expired:
            if self._due.pop(item, None) is not None:  # else an earlier one took it along
                self._reactor.attempt(item, item.expired)
        if self._due and self._timer is None:
            self._arm(max(0.001, next(iter(self._due.values())) - now))
