"""TCP sockets that a helper made ahead, some for each destination: a request for many costs no
more than one for one.

They are kept for a moment only: a socket keeps its namespace alive, that of a dead container too.
Where many are used, more are ordered while some are left: the helper makes them on another
processor, and no flow waits for it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Interface

from v6fwd.daemon.wire import MOST
from v6fwd.relay.budget import SOCKETS_AHEAD
from v6fwd.relay.transparent.bind import bind
from v6fwd.relay.transparent.privileged import (
    AheadRequest,
    MeshAhead,
    MeshSocket,
    SocketRequest,
)
from v6fwd.relay.transparent.task_socket import connect

KEPT = 1.0
"""Seconds, or up to twice as many, until a socket that nobody took is closed."""
FIRST = 2
"""Sockets asked for at first; twice as many each time that they are gone within KEPT."""
ORDERED = 8
"""Sockets at once from which on the next ones are ordered when half of them are gone."""

_Key = tuple[str, Hashable, Hashable, int]
"""The name of a namespace, which one it is now, the destination and its port."""


@dataclass(slots=True)
class _Stock:
    """The sockets to a destination."""

    wanted: int = FIRST
    sockets: list[socket.SocketType] = field(default_factory=list)
    order_at: int = 0
    """How many are left when more are ordered; 0: none are."""
    ordered: int = 0
    """How many are on their way."""
    was_used: bool = True
    is_closed: bool = False

    def came(self, sockets: list[socket.SocketType]) -> None:
        """Keep these; ask for more of them the next time."""
        self.ordered = 0
        if self.is_closed:
            for sock in sockets:
                sock.close()
            return
        self.sockets += sockets
        self.order_at = len(sockets) // 2 if len(sockets) >= ORDERED else 0
        self.wanted = min(MOST, 2 * self.wanted)


Taker = Callable[[list[socket.SocketType]], None]


class Maker(Interface):
    """The helper."""

    def make(self, request: AheadRequest | MeshAhead) -> list[socket.SocketType]:
        """Have sockets made. Raises RelayError and OSError."""

    def order(self, request: AheadRequest | MeshAhead, then: Taker) -> None:
        """Have sockets made, and call `then` with them in a later call of a method here."""

    def collect(self) -> None:
        """Do so now if some were ordered; an order that could not be met gives none."""


class SocketsAhead:
    """The stocks: SOCKETS_AHEAD at most in all."""

    def __init__(self, maker: Maker, later: Callable[[float, Callable[[], None]], object]) -> None:
        """`later` calls back after some seconds."""
        self._maker = maker
        self._later = later
        self._stocks: dict[_Key, _Stock] = {}
        self._sweeps = False

    def take(self, request: SocketRequest) -> socket.SocketType:
        """Return a socket that is bound as requested. Raises RelayError and OSError."""
        netns, epoch, _, destination, port, client = request
        key = netns, epoch, destination, port
        sock = self._from_stock(key, AheadRequest, key)
        try:
            bind(sock, client.host, client.port)
        except BaseException:
            sock.close()
            raise
        return sock

    def to_task(self, request: MeshSocket) -> socket.SocketType:
        """Return a socket that connects as requested. Raises RelayError and OSError."""
        netns, _, task, port, _, identity, _ = request
        key = netns, identity, task, port
        if key not in self._stocks:
            self.drop(netns, but=identity)
        return connect(self._from_stock(key, MeshAhead, (netns, task, port)), request)

    def _from_stock(
        self, key: _Key, ahead: Callable[..., AheadRequest | MeshAhead], words: Iterable[Any]
    ) -> socket.SocketType:
        """Take one; where there is none, ask for some by `ahead` of `words` and how many."""
        stock = self._stocks.get(key)
        if stock is None:
            stock = self._stocks[key] = _Stock()
            self._sweep_later()
        if not stock.sockets and stock.ordered:
            self._maker.collect()
        if not stock.sockets:
            number = max(1, min(stock.wanted, self._room()))
            stock.came(self._maker.make(ahead(*words, number)))
        stock.was_used = True
        sock = stock.sockets.pop()
        if len(stock.sockets) == stock.order_at and stock.order_at:
            self._order(stock, ahead, words)
        return sock

    def _order(
        self, stock: _Stock, ahead: Callable[..., AheadRequest | MeshAhead], words: Iterable[Any]
    ) -> None:
        number = min(stock.wanted, self._room())
        if number >= ORDERED and not stock.ordered:
            stock.ordered = number
            self._maker.order(ahead(*words, number), stock.came)

    def _room(self) -> int:
        kept = sum(len(each.sockets) + each.ordered for each in self._stocks.values())
        return SOCKETS_AHEAD - kept

    def drop(self, netns: str, but: Hashable = -1) -> None:
        """Close the sockets in a namespace, unless it is the one that `but` tells."""
        for key in [key for key in self._stocks if key[0] == netns and key[1] != but]:
            _close(self._stocks.pop(key))

    def close(self) -> None:
        """Close all of them; what was ordered goes with the helper."""
        for stock in self._stocks.values():
            _close(stock)
        self._stocks.clear()

    def _sweep_later(self) -> None:
        if not self._sweeps:
            self._sweeps = True
            self._later(KEPT, self._sweep)

    def _sweep(self) -> None:
        """Close what nobody took since the last time."""
        self._sweeps = False
        self._maker.collect()
        for key, stock in list(self._stocks.items()):
            if not stock.was_used:
                _close(self._stocks.pop(key))
            stock.was_used = False
        if self._stocks:
            self._sweep_later()


def _close(stock: _Stock) -> None:
    stock.is_closed = True
    for sock in stock.sockets:
        sock.close()
    stock.sockets.clear()
