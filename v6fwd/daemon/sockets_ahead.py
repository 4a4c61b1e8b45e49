"""TCP sockets that a helper made ahead, some for each destination: a request for many costs no
more than one for one.

They are kept for a moment only: a socket keeps its namespace alive, that of a dead container too.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

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

_Key = tuple[str, Hashable, Hashable, int]
"""The name of a namespace, which one it is now, the destination and its port."""


@dataclass(slots=True)
class _Stock:
    """The sockets to a destination."""

    wanted: int = FIRST
    sockets: list[socket.SocketType] = field(default_factory=list)
    was_used: bool = True


class SocketsAhead:
    """The stocks: SOCKETS_AHEAD at most in all."""

    def __init__(
        self,
        make: Callable[[AheadRequest | MeshAhead], list[socket.SocketType]],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`make` asks the helper; `later` calls back after some seconds."""
        self._make = make
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
        if not stock.sockets:
            kept = sum(len(each.sockets) for each in self._stocks.values())
            number = max(1, min(stock.wanted, SOCKETS_AHEAD - kept))
            stock.sockets = self._make(ahead(*words, number))
            stock.wanted = min(MOST, 2 * stock.wanted)
        stock.was_used = True
        return stock.sockets.pop()

    def drop(self, netns: str, but: Hashable = -1) -> None:
        """Close the sockets in a namespace, unless it is the one that `but` tells."""
        for key in [key for key in self._stocks if key[0] == netns and key[1] != but]:
            _close(self._stocks.pop(key))

    def close(self) -> None:
        """Close all of them."""
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
        for key, stock in list(self._stocks.items()):
            if not stock.was_used:
                _close(self._stocks.pop(key))
            stock.was_used = False
        if self._stocks:
            self._sweep_later()


def _close(stock: _Stock) -> None:
    for sock in stock.sockets:
        sock.close()
    stock.sockets.clear()
