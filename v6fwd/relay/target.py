"""Where a forward leads: the addresses that the resolver gave last, and connecting to them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Any
from typing import Protocol as Interface

from v6fwd.client_ip.proxy.write import HeaderWriter
from v6fwd.errors import RelayError, reason
from v6fwd.log import Log
from v6fwd.model import Address, Endpoint, Forward, Protocol
from v6fwd.relay.counters import Counters, count
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import tune
from v6fwd.relay.udp_sockets import connect_datagrams

REFRESH_INTERVAL = 1.0
"""Seconds between two questions to the resolver about one name, however many dials fail."""


_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


class Target(Interface):
    """What flows and sessions need of the place where their forward leads."""

    @property
    def holds(self) -> bool:
        """Whether flows need what `close` gives back."""

    def __len__(self) -> int:
        """How many addresses `dial` knows."""

    async def resolve(self) -> None:
        """Learn the addresses. Raises RelayError, naming the target."""

    def resolve_later(self, then: Callable[[], None]) -> None:
        """Learn the addresses, of a name in the background; then call `then`."""

    def refresh(self, then: Callable[[], None]) -> bool:
        """Look for other addresses and call `then` after it; False where that cannot help now."""

    def dial(self, number: int, source: Address | None = None) -> int:
        """Start to connect to address `number`; gives the descriptor.

        `source` is the client. Raises OSError, and ClientRefusedError where the target must see
        its address and cannot.
        """

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:
        """A connected UDP socket for a client, and where it leads to. Raises as `dial` does."""

    def has_moved(self, address: Any) -> bool:
        """Whether new UDP sessions are led elsewhere than to `address`."""

    def was_refused(self, address: Any) -> None:
        """Look for another address: nobody took datagrams at this one."""

    def client_left(self, address: Any, source: Address) -> None:
        """A UDP session to `address` has ended, or moved on."""

    def header_writer(self, writer: HeaderWriter | None) -> HeaderWriter | None:
        """The writer to be used, where the forward's mode has `writer`."""

    def close(self) -> None:
        """Give back what the target held."""


class DirectTarget:
    """A target that sees our own address; a name is resolved again when a connection fails."""

    holds = False

    def __init__(self, endpoint: Endpoint, reactor: Reactor) -> None:
        self.endpoint = endpoint
        self._reactor = reactor
        self._addresses: list[tuple[int, Any]] = []
        self._waiting: list[Callable[[], None]] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._resolved_at = float("-inf")
        self._preferred = 0  # of datagrams: there is no handshake to tell which address answers

    def __len__(self) -> int:
        return len(self._addresses)

    def resolve_later(self, then: Callable[[], None]) -> None:
        if self.endpoint.is_name:
            self.refresh(then)
            return
        with contextlib.suppress(OSError):  # a zone whose interface is not there: dialling tells
            self._addresses = self._numeric()
        then()

    def _numeric(self) -> list[tuple[int, Any]]:
        endpoint = self.endpoint
        if endpoint.path:
            return [(socket.AF_UNIX, endpoint.path)]
        found = socket.getaddrinfo(
            endpoint.host,
            endpoint.port,
            type=_KINDS[endpoint.protocol],
            flags=socket.AI_NUMERICHOST,
        )
        return [(entry[0], entry[4]) for entry in found]

    async def resolve(self) -> None:
        """Raises RelayError, naming the target."""
        endpoint = self.endpoint
        if endpoint.path:
            self._addresses = [(socket.AF_UNIX, endpoint.path)]
            return
        self._resolved_at = self._reactor.clock()
        try:
            found = await self._reactor.loop.getaddrinfo(
                endpoint.host, endpoint.port, type=_KINDS[endpoint.protocol]
            )
        except OSError as error:
            raise RelayError(f"cannot resolve target {endpoint}: {reason(error)}") from error
        self._addresses = [(entry[0], entry[4]) for entry in found]

    def dial(self, number: int, source: Address | None = None) -> int:  # noqa: ARG002
        """Raises OSError."""
        family, sockaddr = self.addresses()[number]
        sock = socket.SocketType(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0)
        try:
            if family != socket.AF_UNIX:
                tune(sock)
            self._connect(sock, sockaddr)
        except BaseException:
            sock.close()
            raise
        return sock.detach()

    @property
    def datagram_address(self) -> tuple[int, Any]:
        """Family and socket address that new UDP sessions send to."""
        return self._addresses[self._preferred % len(self._addresses)]

    def addresses(self) -> list[tuple[int, Any]]:
        """Families and socket addresses. Raises OSError where there are none."""
        if not self._addresses:
            self.refresh(lambda: None)
            raise OSError(0, "its name cannot be resolved")
        return self._addresses

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:  # noqa: ARG002
        self.addresses()
        address = self.datagram_address
        return connect_datagrams(*address), address

    def has_moved(self, address: Any) -> bool:
        return bool(self._addresses and address != self.datagram_address)

    def client_left(self, address: Any, source: Address) -> None:
        """Nothing was put in place for it."""

    def header_writer(self, writer: HeaderWriter | None) -> HeaderWriter | None:
        return writer

    def close(self) -> None:
        """Nothing is held."""

    def was_refused(self, address: Any) -> None:
        """Try the next address, and ask the resolver."""
        if self._addresses and address == self.datagram_address:
            self._preferred += 1
        self.refresh(lambda: None)

    @staticmethod
    def _connect(sock: socket.SocketType, sockaddr: Any) -> None:
        result = sock.connect_ex(sockaddr)
        if result not in (0, errno.EINPROGRESS):
            raise OSError(result, "")

    def refresh(self, then: Callable[[], None]) -> bool:
        """Ask the resolver again, REFRESH_INTERVAL after the last time at the earliest."""
        if self._refreshing is None:
            due = self._reactor.clock() - self._resolved_at >= REFRESH_INTERVAL
            if not (self.endpoint.is_name and due):
                return False
            self._refreshing = self._reactor.loop.create_task(
                self._refresh(), name=f"resolve {self.endpoint}"
            )
        self._waiting.append(then)
        return True

    async def _refresh(self) -> None:
        try:
            await self.resolve()
        except RelayError:
            pass  # the old addresses may answer again; the flows that wait log their own failure
        finally:
            self._refreshing = None
            waiting, self._waiting = self._waiting, []
            for then in waiting:
                then()


def tell_failed(log: Log, counters: Counters, forward: Forward, what: str, error: OSError) -> str:
    """Count a target that one cannot `what`, and say so in the log; gives the reason named."""
    why = reason(error)
    count(counters.dial_failures, why)
    log.limited(
        f"dial {forward.listen} {error.errno}",
        "dial-failed",
        f"cannot {what} {forward.target} for {forward.listen}: {why}",
        target=forward.target,
        listen=forward.listen,
        why=why,
    )
    return why
