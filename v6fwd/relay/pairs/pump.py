"""Tells flows what the native epoll has seen of them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from v6fwd.model.lean import TYPE_CHECKING
from v6fwd.relay.pairs.native import PAIRS, native_epoll
from v6fwd.relay.pump import KIND, KIND_BITS, PairEvents, PairPump, Stopped, tell
from v6fwd.relay.reactor import Reactor

if TYPE_CHECKING:
    import asyncio

    from v6fwd.relay.pairs._epoll import Epoll

TAKES_ALL = "V6FWD_PAIRS_TAKE_ALL"
"""In the environment: the pump, `epoll` or `ring`, to which all flows go, even one whose answer
would be looked at, for tests."""


class EpollPairs:
    """The pairs of the reactor's own epoll and their owners; meets the contract `PairPump`."""

    def __init__(self, epoll: Epoll, reactor: Reactor) -> None:
        self._epoll = epoll
        self._reactor = reactor
        self._takes_all = os.environ.get(TAKES_ALL) == "epoll"
        self.is_connected = epoll.is_connected
        self.reset = epoll.reset
        self.moved = epoll.moved
        self.is_half_closed = epoll.is_half_closed
        reactor.change_handler(PAIRS, self)

    def on_event(self, mask: int) -> None:
        """Tell the owner of a pair what has become of it; `mask` says both."""
        owner: PairEvents | None = self._epoll.owner(mask >> KIND_BITS)
        if owner is not None:  # else it has closed meanwhile
            tell(self._reactor, owner, mask & KIND)

    def on_exception(self, error: Exception) -> None:
        """Raise it: `on_event` lets none pass but a defect of its own."""
        raise error

    def wants(self, looked_at: bool) -> bool:
        return self._takes_all or not looked_at

    def wants_back(self) -> bool:
        return True

    def connect(
        self, owner: PairEvents, client: int, target: int, first: bytes, header_size: int
    ) -> int:
        pair = self._epoll.connect(owner, client, target, first, header_size)
        self._turn_soon()
        return pair

    def dial(
        self, owner: PairEvents, client: int, address: bytes, header: bytes, hop_limit: int
    ) -> tuple[int, int, bool]:
        dialled = self._epoll.dial(owner, client, address, header, hop_limit)
        if not self._reactor.turning:
            self._turn_soon()
        return dialled

    def join(self, owner: PairEvents, client: int, target: int, moved: tuple[int, int]) -> int:
        pair = self._epoll.join(owner, client, target, *moved)
        self._reactor.forget(client)
        self._reactor.forget(target)
        self._turn_soon()
        return pair

    def stop(self, pair: int) -> None:
        self._epoll.stop(pair)
        self._turn_soon()

    def take(self, pair: int) -> Stopped:
        return Stopped(*self._epoll.take(pair))

    def drop(self, pair: int) -> None:
        for fd in self._epoll.drop(pair):
            self._reactor.close_fd(fd)

    def _turn_soon(self) -> None:
        """Outside of a turn nobody asks what there is to tell."""
        if not self._reactor.turning and self._epoll.is_due:
            self._reactor.turn_soon()


def epoll_reactor(loop: asyncio.AbstractEventLoop) -> tuple[Reactor, Sequence[PairPump]]:
    """A reactor, and its native pump where there is one."""
    epoll = native_epoll()
    reactor = Reactor(loop, epoll=epoll)
    return reactor, () if epoll is None else (EpollPairs(epoll, reactor),)
