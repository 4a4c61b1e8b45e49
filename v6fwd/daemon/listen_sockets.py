"""The listening sockets, which the supervisor holds as long as their forwards are open.

- TCP: one socket a forward, at which all workers accept. A worker that dies takes no client
  along: who waits is in the one queue, and the others go on with it. SO_REUSEPORT would give each
  worker a queue of its own, whose clients wait for that very worker, be it dead or stopped; and
  a socket that somebody else has bound cannot be joined. Left alone, one worker would accept all
  of a burst; taking turns (Gate.take_turn), two share as evenly as the kernel's hash would: the
  larger share of 8, 50 and 200 clients that come at once is 0.62, 0.54 and 0.52 with either.
- UDP: one socket a worker, in a SO_REUSEPORT group: the kernel's hash sends all datagrams of a
  client to the same one, where its session is. A socket outlives its worker here, so the hash
  does not change when one is replaced.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

from v6fwd.model import Endpoint, Protocol
from v6fwd.relay.relay import listen_on
from v6fwd.relay.udp_sockets import open_udp_listener

Sockets = list[socket.socket]
"""The sockets of one forward; the index is the shard."""


class ListenSockets:
    """Listening sockets by endpoint, `workers` for each endpoint of UDP."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._sockets: dict[Endpoint, Sockets] = {}

    def __contains__(self, listen: Endpoint) -> bool:
        return listen in self._sockets

    def __iter__(self) -> Iterator[tuple[Endpoint, Sockets]]:
        return iter(self._sockets.items())

    def __getitem__(self, listen: Endpoint) -> Sockets:
        return self._sockets[listen]

    def add(self, listen: Endpoint, sockets: Sockets) -> None:
        """Hold sockets that were opened elsewhere."""
        self._sockets[listen] = sockets

    def open_all(self, endpoints: Iterable[Endpoint]) -> None:
        """Listen on all endpoints, or on none. Raises RelayError."""
        opened: dict[Endpoint, Sockets] = {}
        try:
            for listen in endpoints:
                opened[listen] = self._open(listen, self._sockets.get(listen, []))
        except BaseException:
            for listen, sockets in opened.items():
                for sock in sockets[len(self._sockets.get(listen, [])) :]:
                    sock.close()
            raise
        self._sockets.update(opened)

    def _open(self, listen: Endpoint, known: Sockets) -> Sockets:
        """Return the known sockets and open the missing ones."""
        if listen.protocol is Protocol.TCP:
            return known or [listen_on(listen)]
        sockets = list(known)
        try:
            if not sockets:
                sockets.append(open_udp_listener(listen, shared=self._workers > 1))
            while len(sockets) < self._workers and is_shared(sockets[0]):
                sockets.append(open_udp_listener(listen, beside=sockets[0]))
        except BaseException:
            for sock in sockets[len(known) :]:
                sock.close()
            raise
        return sockets

    def close(self, listen: Endpoint) -> None:
        """Close an endpoint's sockets. The port is free when the workers have closed theirs."""
        for sock in self._sockets.pop(listen):
            sock.close()

    def close_all(self) -> None:
        """Close all sockets."""
        for listen in list(self._sockets):
            self.close(listen)


def is_shared(sock: socket.socket) -> bool:
    """Whether other sockets may be bound beside it."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


def serves(listen: Endpoint, shard: int, worker: int, workers: int) -> bool:
    """Whether a worker is to serve a socket. Endpoints with too few for all are spread by port."""
    if listen.protocol is Protocol.TCP:
        return True
    return (shard + listen.port) % workers == worker
