"""Tells flows what the native ring has seen of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from v6fwd.relay.pairs.pump import TAKES_ALL
from v6fwd.relay.pump import PairEvents, Stopped
from v6fwd.relay.ring.native import Ring


class RingPump:
    """The pairs of a ring and their owners; meets the contract `PairPump`."""

    def __init__(
        self, ring: Ring, rest: Callable[[], object], unwatch: Callable[[int], object]
    ) -> None:
        """`rest` submits outside of a turn. `unwatch` takes a descriptor from the epoll."""
        self._ring = ring
        self.is_connected, self.is_half_closed = ring.is_connected, ring.is_half_closed
        self.stop, self.reset, self.drop, self.moved = ring.stop, ring.reset, ring.drop, ring.moved
        self._unwatch = unwatch
        self._rest = rest
        self._takes_all = os.environ.get(TAKES_ALL) == "ring"
        self.is_open = False
        """Whether flows are better served here; see reactor.py."""
        self.turning = False
        """Whether a wait is sure to follow, which submits what is asked for."""

    def wants(self, looked_at: bool) -> bool:
        return self._takes_all or (self.is_open and not looked_at)

    def wants_back(self) -> bool:
        return self._takes_all or self.is_open

    def connect(
        self, owner: PairEvents, client: int, target: int, first: bytes, header_size: int
    ) -> int:
        pair = self._ring.connect(owner, client, target, first, header_size)
        self._submit()
        return pair

    def dial(
        self, owner: PairEvents, client: int, address: bytes, header: bytes, hop_limit: int
    ) -> tuple[int, int, bool]:
        dialled = self._ring.dial(owner, client, address, header, hop_limit)
        if not self.turning:
            self._submit()
        return dialled

    def join(self, owner: PairEvents, client: int, target: int, moved: tuple[int, int]) -> int:
        pair = self._ring.join(owner, client, target, *moved)
        self._unwatch(client)
        self._unwatch(target)
        self._submit()
        return pair

    def _submit(self) -> None:
        """Raise nothing: the pair is ours by now. The next sweep submits, too."""
        if not self.turning:
            with contextlib.suppress(MemoryError):
                self._rest()

    def take(self, pair: int) -> Stopped:
        return Stopped(*self._ring.take(pair))
