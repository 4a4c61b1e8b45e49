"""Ends flows that waited for longer than a time limit of their forward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from v6fwd.model import Forward, Protocol
from v6fwd.model.lean import TYPE_CHECKING
from v6fwd.relay.flows import Flow, Flows, Lull
from v6fwd.relay.reactor import Reactor

if TYPE_CHECKING:
    import asyncio

TimeLimit = tuple[Lull, float]
"""What is waited for, and for how many seconds at most."""


def _end(flow: Flow, lull: Lull) -> None:
    flow.overdue(lull)


class IdleSweep:
    """Ends flows that waited for `seconds`. Costs nothing while bytes move.

    `among` gives the flows that this limit is for; all of them if it is left out.
    """

    def __init__(
        self,
        flows: Flows,
        seconds: float,
        among: Callable[[], Iterable[Flow]] | None = None,
        lull: Lull = Lull.IDLE,
        end: Callable[[Flow, Lull], None] = _end,
    ) -> None:
        """`end` ends a flow, and raises nothing: there are others."""
        self._lull = lull
        self._end = end
        self._among = among or (lambda: flows.live)
        self._seconds = seconds
        self._seen: dict[Flow, tuple[int, float]] = {}

    @property
    def interval(self) -> float:
        """Seconds between sweeps: a flow ends after `seconds`, an eighth later at most."""
        return self._seconds / 8

    def sweep(self, now: float) -> None:
        """End the flows that waited for too long."""
        before, self._seen = self._seen, {}
        for flow in list(self._among()):
            progress = flow.lull(self._lull)
            if progress is None:
                continue
            seen, since = before.get(flow, (None, now))
            if seen != progress:
                since = now
            if now - since >= self._seconds:
                self._end(flow, self._lull)
            else:
                self._seen[flow] = (progress, since)


class IdleSweeps:
    """Sweeps for every time limit that forwards have."""

    def __init__(self, reactor: Reactor, flows: Flows) -> None:
        self._reactor = reactor
        self._flows = flows
        self._timers: dict[TimeLimit, asyncio.TimerHandle] = {}
        self._wanted: set[TimeLimit] = set()

    def keep(self, forwards: Iterable[Forward]) -> None:
        """Sweep for these from now on, and for others while there are flows that have them."""
        self._wanted = {limit for forward in forwards for limit in _limits_of(forward)}
        for limit in self._wanted - self._timers.keys():
            lull, seconds = limit
            among = partial(self._with, limit)
            self._arm(limit, IdleSweep(self._flows, seconds, among, lull, self._end))

    def _end(self, flow: Flow, lull: Lull) -> None:
        self._reactor.attempt(flow, flow.overdue, lull)

    def _with(self, limit: TimeLimit) -> Iterator[Flow]:
        name, seconds = limit[0].value, limit[1]
        return (flow for flow in self._flows.live if getattr(flow.forward.limits, name) == seconds)

    def _arm(self, limit: TimeLimit, sweep: IdleSweep) -> None:
        call_later = self._reactor.loop.call_later
        self._timers[limit] = call_later(sweep.interval, self._tick, limit, sweep)

    def _tick(self, limit: TimeLimit, sweep: IdleSweep) -> None:
        self._arm(limit, sweep)  # whatever the sweep meets: the next one is due
        sweep.sweep(self._reactor.clock())
        if limit not in self._wanted and not any(self._with(limit)):
            self._timers.pop(limit).cancel()

    def close(self) -> None:
        """Cancel the timers."""
        for timer in self._timers.values():
            timer.cancel()


def _limits_of(forward: Forward) -> Iterator[TimeLimit]:
    """The time limits that flows of a forward can have."""
    if forward.protocol is not Protocol.TCP:
        return
    for lull in Lull:
        seconds = getattr(forward.limits, lull.value)
        if seconds and (forward.client_ip.is_http or not lull.is_http):
            yield lull, seconds
