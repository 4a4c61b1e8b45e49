"""For tests of UDP in the test's own event loop: sockets of clients and of targets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

from tests.support.relaying import Running
from v6fwd.model import Endpoint, Protocol
from v6fwd.relay.udp.listener import UdpListener
from v6fwd.relay.udp.resources import UdpCounters
from v6fwd.relay.udp.session import UdpSession

PATIENCE = 20.0
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104

Answer = Callable[[bytes, Any], bytes | None]


class Peer:
    """A socket that keeps all that it receives, until it is asked for it."""

    def __init__(self, host: str = "::1", port: int = 0, answer: Answer | None = None) -> None:
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(self.family, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self.sock.setblocking(False)
        self.sock.bind((host, port))
        self.host = host
        self._port = int(self.sock.getsockname()[1])
        self.received: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()
        self._answer = answer
        asyncio.get_running_loop().add_reader(self.sock, self._read)

    @property
    def port(self) -> int:
        """Its port."""
        return self._port

    @property
    def endpoint(self) -> Endpoint:
        """What a forward has as its target."""
        return Endpoint(self.host, self.port, protocol=Protocol.UDP)

    def send(self, data: bytes, address: Any) -> None:
        """Send one datagram."""
        self.sock.sendto(data, address)

    def send_train(self, data: bytes, segment: int, address: Any) -> None:
        """Send a train of datagrams."""
        control = [(SOL_UDP, UDP_SEGMENT, segment.to_bytes(2, "little"))]
        assert self.sock.sendmsg([data], control, 0, address) == len(data)

    async def receive(self) -> tuple[bytes, Any]:
        """The next datagram and who sent it."""
        async with asyncio.timeout(PATIENCE):
            return await self.received.get()

    async def data(self, count: int) -> list[bytes]:
        """The payload of the next `count` datagrams."""
        return [(await self.receive())[0] for _ in range(count)]

    def close(self) -> None:
        """Free the port."""
        if self.sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self.sock)
            self.sock.close()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                data, address = self.sock.recvfrom(65536)
                self.received.put_nowait((data, address))
                reply = self._answer(data, address) if self._answer else None
                if reply is not None:
                    self.sock.sendto(reply, address)


class Clock:
    """The clock of a relay in the test's hands: UDP sessions expire when the test says so."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sessions: Any = None

    def drive(self, running: Running) -> None:
        """Take the place of a relay's clock, before its first session."""
        self._sessions = running.sessions
        self._sessions._reactor.clock = lambda: self._now

    def advance(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass, and the table look at every step whether something is due."""
        for _ in range(int(seconds / step)):
            self._now += step
            self._sessions._tick()


def sessions(running: Running) -> list[UdpSession]:
    """All sessions, the lowest rank first and in it the least recently used."""
    found = list(running.sessions)
    assert all(isinstance(session, UdpSession) for session in found)
    return cast("list[UdpSession]", found)


def counters(running: Running) -> UdpCounters:
    """What the first forward counted."""
    listener = running.relay.listeners[0]
    assert isinstance(listener, UdpListener)
    return listener.forward.counters


def echo(data: bytes, _: Any) -> bytes:
    """An Answer."""
    return data


@contextlib.contextmanager
def peer(host: str = "::1", port: int = 0, answer: Answer | None = None) -> Iterator[Peer]:
    """A Peer that is closed at the end."""
    one = Peer(host, port, answer)
    try:
        yield one
    finally:
        one.close()
