"""The flows of this process: who is there, how many may be, and who wants to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Protocol

from v6fwd.model import Address, Forward
from v6fwd.relay.counters import Counters
from v6fwd.relay.engine import Engine


class Live(Protocol):
    """A flow as it may be asked about."""

    @property
    def counters(self) -> Counters:
        """Where it is counted."""

    @property
    def forward(self) -> Forward:
        """The forward as it was when the flow began."""

    @property
    def source(self) -> Address | None:
        """Who the client is."""

    def moved(self) -> tuple[int, int]:
        """Bytes up and down."""

    def seconds(self) -> float:
        """How long it lives."""


class Flow(Live, Protocol):
    """What the rest of the relay needs to know of a flow."""

    @property
    def idle_timeout(self) -> float:
        """Seconds without a byte after which it is reset; 0: never."""

    def abort(self, end: str) -> None:
        """Reset both ends; `end` is for the log."""

    def retire(self) -> None:
        """Close when what is under way is done, if there is a way to tell."""

    def progress(self) -> int:
        """A number that changes with every byte moved."""


class Flows:
    """The set of live flows, bounded by `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.live: set[Flow] = set()
        self.on_left: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self.live)

    @property
    def is_full(self) -> bool:
        """Whether no further flow may start."""
        return len(self.live) >= self.limit

    def add(self, flow: Flow) -> None:
        """A flow has started."""
        self.live.add(flow)

    def remove(self, flow: Flow) -> None:
        """A flow has ended; its descriptors are closed or about to be."""
        self.live.discard(flow)
        if self.on_left is not None:
            self.on_left()

    def retire_all(self) -> None:
        """Ask every flow to close when it can."""
        for flow in list(self.live):
            flow.retire()

    def abort_all(self, end: str) -> int:
        """Reset every flow; gives how many there were."""
        return abort(self.live, end)


def abort(flows: Iterable[Flow], end: str) -> int:
    """Reset these flows; gives how many there were."""
    doomed = list(flows)
    for flow in doomed:
        flow.abort(end)
    return len(doomed)


class IdleSweep:
    """Finds the flows that moved no byte for `seconds`. Costs a flow nothing while it moves.

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
                flow.abort("idle timeout")
            else:
                self._seen[flow] = (progress, since)


class IdleSweeps:
    """Sweeps for every idle timeout that forwards have."""

    def __init__(self, engine: Engine, flows: Flows) -> None:
        self._engine = engine
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
        call_later = self._engine.loop.call_later
        self._timers[seconds] = call_later(sweep.interval, self._tick, seconds, sweep)

    def _tick(self, seconds: float, sweep: IdleSweep) -> None:
        sweep.sweep(self._engine.clock())
        if seconds in self._wanted or any(self._with_timeout(seconds)):
            self._arm(seconds, sweep)
        else:
            del self._timers[seconds]

    def close(self) -> None:
        """Sweep no more."""
        for timer in self._timers.values():
            timer.cancel()
