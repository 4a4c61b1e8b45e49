"""Tells flows what the native ring has seen of them."""

from __future__ import annotations

import os
from collections.abc import Callable

from v6fwd.relay.pump import PairEvents, Stopped
from v6fwd.relay.ring.native import CONNECTED, FINISHED, KIND, KIND_BITS, Ring

FROM_FLOWS = 4
"""Flows from which on a ring pays: below, a wait brings one event, and epoll is cheaper."""

TAKES_ALL = "V6FWD_RING_TAKES_ALL"
"""In the environment: even a lonely flow, and one whose answer would be looked at, for tests."""


class RingPump:
    """The pairs of a ring and their owners; meets the contract `PairPump`."""

    def __init__(self, ring: Ring, on_waiting: Callable[[], object]) -> None:
        """`on_waiting` is called outside of a turn when a turn is wanted."""
        self._ring = ring
        self.on_waiting = on_waiting
        self._takes_all = bool(os.environ.get(TAKES_ALL))
        self._owners: dict[int, PairEvents] = {}
        self.turning = False
        """Whether a wait is sure to follow, which submits what is asked for."""

    def wants(self, flows: int, *, looked_at: bool) -> bool:
        return self._takes_all or (flows >= FROM_FLOWS and not looked_at)

    def connect(
        self, owner: PairEvents, client: int, target: int, first: bytes, header_size: int
    ) -> tuple[int, bool]:
        number = self._ring.connect(client, target, first, header_size)
        return self._added(number >> 1, owner), bool(number & 1)

    def join(self, owner: PairEvents, client: int, target: int, moved: tuple[int, int]) -> int:
        pair = self._ring.join(client, target, *moved)
        return self._added(pair, owner)

    def _added(self, pair: int, owner: PairEvents) -> int:
        self._owners[pair] = owner
        if not self.turning:
            self.rest()
        return pair

    def rest(self) -> None:
        """Leave the ring alone: the event loop hears when there is something to do."""
        if self._ring.rest():
            self.on_waiting()

    def stop(self, pair: int) -> None:
        self._ring.stop(pair)

    def reset(self, pair: int) -> None:
        self._ring.reset(pair)

    def drop(self, pair: int) -> None:
        self._owners.pop(pair, None)
        self._ring.drop(pair)

    def moved(self, pair: int) -> tuple[int, int]:
        return self._ring.moved(pair)

    def is_half_closed(self, pair: int) -> bool:
        return self._ring.is_half_closed(pair)

    def owner(self, event: int) -> PairEvents | None:
        """Whose event it is; None if that flow has closed meanwhile."""
        return self._owners.get(event >> KIND_BITS)

    def tell(self, event: int, owner: PairEvents) -> None:
        """Tell an owner what has happened."""
        kind = event & KIND
        if kind == CONNECTED:
            owner.pair_connected()
        elif kind == FINISHED:
            owner.pair_finished()
        else:
            pair = event >> KIND_BITS
            stopped = Stopped(*self._ring.take(pair))
            del self._owners[pair]
            owner.pair_stopped(stopped)
