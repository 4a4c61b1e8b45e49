"""Resets flows that moved no byte for longer than the idle timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial

from v6fwd.relay.ends import End
from v6fwd.relay.flows import Flow, Flows
from v6fwd.relay.reactor import Reactor


class IdleSweep:
    """Resets flows that moved no byte for `seconds`. Costs nothing while bytes move.

    `among` gives the flows that this limit is for; all of them if it is left out.
    """

    def __init__(
        self, flows: Flows, seconds: float, among: Callable[[], Iterable[Flow]] | None = None
    ) -> None:
        self._among = among or (lambda: flows.live)
        self._seconds = seconds
        self._seen: dict[Flow, tuple[int, float]] = {}

    @property
    def interval(self) -> float:
        """Seconds between sweeps: a flow ends after `seconds`, an eighth later at most."""
        return self._seconds / 8

    def sweep(self, now: float) -> None:
        """Reset the flows that were idle for too long."""
        before, self._seen = self._seen, {}
        for flow in list(self._among()):
            progress = flow.progress()
            seen, since = before.get(flow, (None, now))
            if seen != progress:
                since = now
            if now - since >= self._seconds:
                flow.abort(End.IDLE)
            else:
                self._seen[flow] = (progress, since)


class IdleSweeps:
    """Sweeps for every idle timeout that forwards have."""

    def __init__(self, reactor: Reactor, flows: Flows) -> None:
        self._reactor = reactor
        self._flows = flows
        self._timers: dict[float, asyncio.TimerHandle] = {}
        self._wanted: frozenset[float] = frozenset()

    def keep(self, timeouts: Collection[float]) -> None:
        """Sweep with these from now on, and with others while there are flows that have them.

        0 means none.
        """
        self._wanted = frozenset(timeouts)
        for seconds in timeouts:
            if seconds and seconds not in self._timers:
                sweep = IdleSweep(self._flows, seconds, partial(self._with_timeout, seconds))
                self._arm(seconds, sweep)

    def _with_timeout(self, seconds: float) -> Iterator[Flow]:
        return (flow for flow in self._flows.live if flow.idle_timeout == seconds)

    def _arm(self, seconds: float, sweep: IdleSweep) -> None:
        call_later = self._reactor.loop.call_later
        self._timers[seconds] = call_later(sweep.interval, self._tick, seconds, sweep)

    def _tick(self, seconds: float, sweep: IdleSweep) -> None:
        sweep.sweep(self._reactor.clock())
        if seconds in self._wanted or any(self._with_timeout(seconds)):
            self._arm(seconds, sweep)
        else:
            del self._timers[seconds]

    def close(self) -> None:
        """Cancel the timers."""
        for timer in self._timers.values():
            timer.cancel()
