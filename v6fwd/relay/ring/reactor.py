"""A reactor that waits for a ring and for the epoll at once.

While the ring has no pair, it waits in the epoll, as ever. Else it waits in the ring, which watches
the epoll's descriptor: one system call brings what flows have moved, and says whether the epoll has
events. The event loop watches both descriptors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from v6fwd.model.lean import TYPE_CHECKING
from v6fwd.relay.pairs.native import native_epoll
from v6fwd.relay.pairs.pump import EpollPairs
from v6fwd.relay.pump import KIND, KIND_BITS, READABLE, PairEvents, PairPump, teller
from v6fwd.relay.reactor import Handler, Reactor
from v6fwd.relay.ring.native import Ring
from v6fwd.relay.ring.pump import FROM_FLOWS, RingPump
from v6fwd.relay.tcp.side import PlainSide

if TYPE_CHECKING:
    import asyncio

    from v6fwd.relay.pairs._epoll import Epoll

SWEEP_INTERVAL = 0.2
"""Seconds between two looks for pairs of which one end has ended; after two the epoll has them."""

BUSY = 4
"""Events at once on the epoll from which on its flows are better served by the ring."""


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
        self.pairs = RingPump(ring, lambda: loop.call_soon(self._ring_turn), self.unwatch)
        self._poll = self._wait
        loop.add_reader(ring.fileno(), self._ring_turn)
        self._sweeping = loop.call_later(SWEEP_INTERVAL, self._sweep)

    def close(self) -> None:
        self._sweeping.cancel()
        self.loop.remove_reader(self._ring.fileno())
        self._ring.close()
        super().close()

    def _sweep(self) -> None:
        """No read of an end that has ended would tell that its peer is gone: epoll tells it."""
        self._sweeping = self.loop.call_later(SWEEP_INTERVAL, self._sweep)
        if self._ring.active:
            self._ring.sweep()
            self._have_all_on_the_ring()
            self.pairs.rest()

    def _have_all_on_the_ring(self) -> None:
        """Take from the native epoll the flows that began when they were few."""
        native = self._native
        if native is not None and native.active and self._ring.active >= FROM_FLOWS:
            native.stop_all()
            self.turn_soon()

    def _dispatch(self, events: list[tuple[int, int]]) -> None:
        """In a busy turn, let flows that began on the epoll move to the ring by their next event.

        They began alone, or their target's first answer was looked at. Reading tells the ring what
        the event has told us.
        """
        if len(events) < BUSY:
            super()._dispatch(events)
            return
        rest = [each for each in events if not self._moves(self._handlers.get(each[0]))]
        super()._dispatch(rest)

    def _moves(self, handler: Handler | None) -> bool:
        if type(handler) is not PlainSide:
            return False
        try:
            return handler.flow.become_pair(busy=True)
        except Exception as error:
            self.give_up(handler, error)
            return True

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
                pairs.rest()

    def _wait(self, seconds: float, most: int) -> list[tuple[int, int]]:
        """Wait for either; tell flows what the ring has seen, and give the epoll's events."""
        ring = self._ring
        self._moved = False
        if not (ring.active or self._due):
            return self._epoll.poll(seconds, most)
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
        return self._epoll.poll(0, most) if has_more or is_due else []

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
                self.attempt(owner, teller(owner, kind))
        return has_more


def ring_reactor(
    loop: asyncio.AbstractEventLoop, ring: Ring
) -> tuple[RingReactor, Sequence[PairPump]]:
    """A reactor for both, and its native pumps: the ring, and for few flows the epoll."""
    epoll = native_epoll()
    reactor = RingReactor(loop, ring, epoll=epoll)
    if epoll is None:
        return reactor, (reactor.pairs,)
    return reactor, (reactor.pairs, EpollPairs(epoll, reactor, FROM_FLOWS))
