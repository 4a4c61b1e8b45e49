"""TCP sockets that a helper made ahead, some for each destination: a request for many costs no
more than one for one.

They are kept for a moment only: a socket keeps its namespace alive, that of a dead container too.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from v6fwd.client_ip.destination import Destination
from v6fwd.daemon.wire import MOST
from v6fwd.relay.transparent.bind import bind
from v6fwd.relay.transparent.privileged import AheadRequest, SocketRequest

KEPT = 1.0
"""Seconds, or up to twice as many, until a socket that nobody took is closed."""
FIRST = 2
"""Sockets asked for at first; twice as many each time that they are gone within KEPT."""

_Key = tuple[str, int, Destination, int]


@dataclass(slots=True)
class _Stock:
    """The sockets to a destination."""

    wanted: int = FIRST
    sockets: list[socket.SocketType] = field(default_factory=list)
    was_used: bool = True


class SocketsAhead:
    """The stocks. `make` asks the helper; `later` calls back after some seconds."""

    def __init__(
        self,
        make: Callable[[AheadRequest], list[socket.SocketType]],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._make = make
        self._later = later
        self._stocks: dict[_Key, _Stock] = {}
        self._sweeps = False

    def take(self, request: SocketRequest) -> socket.SocketType:
        """Return a socket that is bound as requested. Raises RelayError and OSError."""
        netns, epoch, _, destination, port, client = request
        key = netns, epoch, destination, port
        stock = self._stocks.get(key)
        if stock is None:
            stock = self._stocks[key] = _Stock()
            self._sweep_later()
        if not stock.sockets:
            stock.sockets = self._make(AheadRequest(*key, stock.wanted))
            stock.wanted = min(MOST, 2 * stock.wanted)
        stock.was_used = True
        sock = stock.sockets.pop()
        try:
            bind(sock, client.host, client.port)
        except BaseException:
            sock.close()
            raise
        return sock

    def drop(self, netns: str, but: int = -1) -> None:
        """Close the sockets in a namespace, unless it is the one of the epoch `but`."""
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
