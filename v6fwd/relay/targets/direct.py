"""A target that sees our own address. The addresses of a name may change."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Sequence

from v6fwd.errors import RelayError, reason
from v6fwd.log import attempt, in_background
from v6fwd.model import Address, Endpoint, Protocol
from v6fwd.model.lean import TYPE_CHECKING, Any
from v6fwd.relay.limits.hops import set_hop_limit
from v6fwd.relay.reactor import Reactor
from v6fwd.relay.sockets import save_ack, tune
from v6fwd.relay.targets.addresses import Addresses, SocketAddress
from v6fwd.relay.targets.loops import LEADS_BACK

if TYPE_CHECKING:
    import asyncio

    from v6fwd.client_ip.proxy.write import HeaderWriter
    from v6fwd.relay.targets.resolver import Resolver

REFRESH_INTERVAL = 1.0
"""Seconds between two questions to the resolver about one name, however many dials fail."""
SILENT_INTERVAL = 5.0
"""The same where UDP sessions had no answer: some servers never give one."""
MAX_AGE = 30.0
"""Seconds for which an answer is believed while flows begin: a container may get a new address,
and another one its old."""
PATIENCE = 0.250
"""Seconds that new flows wait for a newer answer, before they go where the old one says."""

_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}
_BEGUN = (0, errno.EINPROGRESS)
_ABSENT = "its container has no address now"
_UNRESOLVED = "its name cannot be resolved"


class DirectTarget:
    """A target that sees our own address; a name is resolved again now and then.

    Large because it is what every flow asks: addresses, questions to the resolver and the
    transparent targets' fallback are one interface.
    """

    holds = False
    live = None

    def __init__(
        self, endpoint: Endpoint, reactor: Reactor, resolver: Resolver | None = None
    ) -> None:
        self.endpoint = endpoint
        self.is_name = endpoint.is_name
        self._reactor = reactor
        self._resolver = resolver or _resolver_for(endpoint)
        self.known = Addresses()
        self.on_found: Callable[[], None] = _nothing
        """Called when the resolver has answered: may refuse addresses."""
        self._waiting: list[Callable[[], None]] = []
        self._impatient: list[Callable[[], None]] = []  # who waits for PATIENCE at most
        self._refreshing: asyncio.Task[None] | None = None
        self._resolved_at = float("-inf")

    def __len__(self) -> int:
        return len(self.known.all)

    @property
    def found(self) -> Sequence[SocketAddress]:
        return self.known.found

    @property
    def straight(self) -> bytes:
        return b"" if self.is_name else self.known.straight

    def refuse(self, addresses: Sequence[SocketAddress]) -> None:
        if addresses or len(self.known.all) < len(self.known.found):
            self.known.refuse(addresses)

    # -- the resolver --

    def resolve_later(self, then: Callable[[], None]) -> None:
        if self.is_name:
            self.refresh(then)
            return
        with contextlib.suppress(OSError):  # a zone whose interface is not there: dialling tells
            self.known.replace(self._numeric())
        then()

    def _numeric(self) -> list[SocketAddress]:
        endpoint = self.endpoint
        if endpoint.path:
            return [(socket.AF_UNIX, endpoint.path)]
        if endpoint.is_absent:
            return []
        found = socket.getaddrinfo(
            endpoint.host.encode(),  # not by IDNA, see listen_address
            endpoint.port,
            type=_KINDS[endpoint.protocol],
            flags=socket.AI_NUMERICHOST,
        )
        return [(entry[0], entry[4]) for entry in found]

    async def resolve(self) -> None:
        """Raises RelayError, naming the target."""
        self._resolved_at = self._reactor.clock()
        try:
            found = await self._ask() if self.is_name else self._numeric()
        except OSError as error:
            raise RelayError(f"cannot resolve target {self.endpoint}: {reason(error)}") from error
        self.known.replace(found)
        self.on_found()

    async def _ask(self) -> list[SocketAddress]:
        assert self._resolver is not None  # it is a name
        found = await self._resolver.ask(self.endpoint.host, self._reactor.loop)
        port = self.endpoint.port
        return [(family, (sockaddr[0], port, *sockaddr[2:])) for family, sockaddr in found]

    def refresh(self, then: Callable[[], None]) -> bool:
        """Ask the resolver again, REFRESH_INTERVAL after the last time at the earliest."""
        if not self._refresh_after(REFRESH_INTERVAL):
            return False
        self._waiting.append(then)
        return True

    def renew(self, then: Callable[[], None]) -> bool:
        """Ask the resolver again, MAX_AGE after the last time at the earliest."""
        if not self.known.all or not self._refresh_after(MAX_AGE):
            return False
        if self._reactor.clock() - self._resolved_at >= PATIENCE:
            return False
        if not self._impatient:
            self._reactor.loop.call_later(PATIENCE, self._be_patient_no_more)
        self._impatient.append(then)
        return True

    def _refresh_after(self, age: float) -> bool:
        """Whether the resolver is asked at this moment."""
        if self._refreshing is None:
            due = self._reactor.clock() - self._resolved_at >= age
            if not (self.is_name and due):
                return False
            self._refreshing = in_background(self._refresh(), f"resolve {self.endpoint}")
            self._resolved_at = self._reactor.clock()
        return True

    async def _refresh(self) -> None:
        try:
            await self.resolve()
        except RelayError:
            pass  # the old addresses may answer again; the flows that wait log their own failure
        finally:
            self._refreshing = None
            waiting, self._waiting = self._waiting, []
            self._tell(waiting)
            self._be_patient_no_more()

    def _be_patient_no_more(self) -> None:
        waiting, self._impatient = self._impatient, []
        self._tell(waiting)

    def _tell(self, waiting: Iterable[Callable[[], None]]) -> None:
        """Call all: what one of them raises is no business of the others."""
        for then in waiting:
            attempt(then)

    # -- connections --

    def order(self, source: Address | None = None) -> Sequence[SocketAddress]:  # noqa: ARG002
        known = self.known
        return known.all if len(known.all) < 2 else known.order(self._reactor.clock())

    def failed(self, address: SocketAddress) -> None:
        """Ask the resolver at once: once all have failed, flows would wait for its answer."""
        self.known.failed(address, self._reactor.clock())
        self._refresh_after(REFRESH_INTERVAL)

    def answered(self, address: SocketAddress) -> None:
        self.known.answered(address, self._reactor.clock())

    def dial(
        self,
        address: SocketAddress | None,
        source: Address | None = None,  # noqa: ARG002
        hop_limit: int = 0,
        *,
        speaks: bool = False,
    ) -> int:
        """Raises OSError."""
        family, sockaddr = address or (self.known.all or self.addresses())[0]
        sock = socket.SocketType(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0)
        try:
            if family != socket.AF_UNIX:
                tune(sock)
                if speaks:
                    save_ack(sock)
            if hop_limit:
                set_hop_limit(sock, hop_limit)
            result = sock.connect_ex(sockaddr)
            if result not in _BEGUN:
                raise OSError(result, "")
        except BaseException:
            sock.close()
            raise
        return sock.detach()

    def addresses(self) -> Sequence[SocketAddress]:
        """Families and socket addresses. Raises OSError where there are none."""
        found = self.known.all
        if not found:
            self.refresh(_nothing)
            raise OSError(0, self._why_nowhere())
        return found

    def _why_nowhere(self) -> str:
        if self.endpoint.container:
            return _ABSENT
        return LEADS_BACK if self.known.found else _UNRESOLVED

    # -- datagrams --

    def datagram_address(self) -> SocketAddress:
        """Where a new UDP session sends to. Raises OSError where there is no address."""
        self.addresses()
        return self.order()[0]

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:  # noqa: ARG002
        from v6fwd.relay.udp_sockets import connect_datagrams  # only where there is UDP

        address = self.datagram_address()
        return connect_datagrams(*address), address

    def has_moved(self, address: Any) -> bool:
        return self.known.is_worse(address, self._reactor.clock())

    def was_refused(self, address: Any) -> None:
        """Try the next address, and ask the resolver."""
        self.failed(address)
        self.refresh(_nothing)

    def was_silent(self, address: Any) -> None:
        """Ask the resolver, less often: some servers never answer, as those for syslog.

        So silence says nothing against an address unless another one of the target has answered.
        """
        if self.known.has_answered_elsewhere(address, self._reactor.clock()):
            self.failed(address)
        self._refresh_after(SILENT_INTERVAL)

    def client_left(self, address: Any, source: Address) -> None:
        """Nothing was put in place for it."""

    def shown_instead(self, source: Address) -> str:  # noqa: ARG002
        return ""

    def header_writer(self, writer: HeaderWriter | None) -> HeaderWriter | None:
        return writer

    def close(self) -> None:
        """Lead nowhere if it was a container's address: another one may have it now."""
        if self.endpoint.container:
            self.known.replace(())


def _nothing() -> None:
    """Nobody waits for the answer."""


def _resolver_for(endpoint: Endpoint) -> Resolver | None:
    if not endpoint.is_name:
        return None
    from v6fwd.relay.targets.resolver import Resolver

    return Resolver()
