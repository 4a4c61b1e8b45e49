"""A reactor that waits for a ring and for the epoll at once.

While the ring has no pair, it waits in the epoll, as ever. Else it waits in the ring, which watches
the epoll's descriptor: one system call brings what flows have moved, and says whether the epoll has
events. The event loop watches both descriptors.

A ring gains where a wait brings much, above all begins of flows; the native epoll is cheaper where
it brings little. So the load of a wait (pairs/_contract.h) decides who has the flows: from BUSY on
new ones go to the ring, and others with their next event; below QUIET all go back to the epoll.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from v6fwd.model.lean import TYPE_CHECKING
from v6fwd.relay.pairs.native import native_epoll
from v6fwd.relay.pairs.pump import EpollPairs
from v6fwd.relay.pump import KIND, KIND_BITS, READABLE, PairEvents, PairPump, tell
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.ring.native import Ring
from v6fwd.relay.ring.pump import RingPump

if TYPE_CHECKING:
    import asyncio

    from v6fwd.relay.pairs._epoll import Epoll

SWEEP_INTERVAL = 0.2
"""Seconds between two looks for pairs of which one end has ended; after two the epoll has them."""
BUSY = 16.0
"""Load of a wait in the epoll: 16 flows with requests are cheaper there, 8 that begin are not."""
QUIET = 4.0
"""Load of a wait in the ring between two sweeps: the same flows bring half of that in the epoll."""
LEAVE_AT_ONCE = 256
"""Flows that go back to the epoll in one sweep: each takes some 30 us."""


class RingReactor(Reactor):
    """See the module. Takes over the ring, and closes it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ring: Ring,
        *,
        clock: Callable[[], float] = time.monotonic,
        epoll: Epoll | None = None,
    ) -> None:
        super().__init__(loop, clock=clock, epoll=epoll)
        self._ring = ring
        self._native = epoll
        self._polled = False  # the ring watches the epoll
        self._due = False  # the ring has something to tell, though it has no pair
        self.pairs = RingPump(ring, self.rest, self.unwatch)
        self._poll = self._wait
        loop.add_reader(ring.fileno(), self._ring_turn)
        self._sweeping: asyncio.TimerHandle | None = None
        self.pairs.is_open = epoll is None  # the pump in Python is dearer with any load
        self._is_used = self.pairs.wants_back()  # the ring has pairs, or will have

    def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        self.loop.remove_reader(self._ring.fileno())
        self._ring.close()
        super().close()

    def _open_ring(self, native: Epoll) -> None:
        """Let the ring have the flows that begin, and those that say something."""
        self._ring.load()  # from now on
        self.pairs.is_open = native.leaving = self._is_used = True
        self._sweep_later()

    def rest(self) -> None:
        """Leave the ring alone: the event loop hears when there is something to do.

        Raises MemoryError.
        """
        if self._ring.rest():
            self.loop.call_soon(self._ring_turn)
        if self._ring.active:
            self._sweep_later()

    def _sweep_later(self) -> None:
        if self._sweeping is None:
            self._sweeping = self.loop.call_later(SWEEP_INTERVAL, self._sweep)

    def _sweep(self) -> None:
        """No read of an end that has ended would tell that its peer is gone: epoll tells it."""
        self._sweeping = None
        ring, native = self._ring, self._native
        if native is not None and native.leaving:
            self.pairs.is_open = native.leaving = ring.load() >= QUIET
        is_open = self.pairs.wants_back()
        self._is_used = is_open or ring.active > 0
        if ring.active or (native is not None and native.leaving):
            self._sweep_later()
        if ring.active:
            ring.sweep(0 if is_open else LEAVE_AT_ONCE)
            self.rest()

    def _ring_turn(self) -> None:
        self._due = True
        self._turn()

    def _turn(self) -> None:
        pairs = self.pairs
        pairs.turning = True
        try:
            super()._turn()
        finally:
            pairs.turning = False
            if self._ring.active or self._due:
                self.rest()

    def _wait(self, seconds: float, most: int) -> list[tuple[int, int]]:
        """Wait for either; tell flows what the ring has seen, and give the epoll's events."""
        self._moved = False
        if not (self._is_used or self._due):
            return self._poll_epoll(seconds, most)
        ring = self._ring
        self._due = False
        if not self._polled:
            ring.poll(self._epoll.fileno())
            self._polled = True
        is_due = self._native is not None and self._native.is_due
        events = ring.wait(0 if is_due else seconds)
        if events is None and not is_due:
            return []
        self._moved = True
        has_more = self._tell(events or [])
        return self._poll_epoll(0, most) if has_more or is_due else []

    def _poll_epoll(self, seconds: float, most: int) -> list[tuple[int, int]]:
        events, native = self._epoll.poll(seconds, most), self._native
        if native is not None and native.load >= BUSY and not native.leaving:
            self._open_ring(native)
        return events

    def _tell(self, events: list[int]) -> bool:
        """Tell flows what the ring has seen of them; whether the epoll has events, too."""
        owner_of, has_more = self._ring.owner, False
        for event in events:
            kind = event & KIND
            if kind == READABLE:
                self._polled = False
                has_more = True
                continue
            owner: PairEvents | None = owner_of(event >> KIND_BITS)
            if owner is not None:  # else it has closed meanwhile
                tell(self, owner, kind)
        return has_more


def ring_reactor(
    loop: asyncio.AbstractEventLoop, ring: Ring
) -> tuple[RingReactor, Sequence[PairPump]]:
    """A reactor for both, and its native pumps: the epoll has what the ring does not want."""
    epoll = native_epoll()
    reactor = RingReactor(loop, ring, epoll=epoll)
    if epoll is None:
        return reactor, (reactor.pairs,)
    return reactor, (reactor.pairs, EpollPairs(epoll, reactor))
