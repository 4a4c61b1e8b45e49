"""Targets that see their client at their socket: the client's own address, or a pseudo IPv4.

`InsideTarget` speaks from inside the target's network namespace, so all addresses are possible
and nothing is on the wire. `AcrossTarget` speaks over the network from our own namespace: there
only an address that is routed back to us will do, which is a pseudo one. A client that cannot
be shown, because of what its address is or where the target listens, falls to the forward's
fallback, which never shows a wrong address at its socket, only the bridge's or none.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from v6fwd.client_ip.proxy_write import HeaderWriter, write_v2, write_v2_dgram
from v6fwd.client_ip.ways import Hidden, Way, Ways, find_ways, is_loopback
from v6fwd.model import (
    Address,
    Endpoint,
    Forward,
    IPNetwork,
    Protocol,
    Transparent,
    TransparentFallback,
    ip_text,
)
from v6fwd.relay.claims import Claim, connect_datagrams_as, dial_as, may_claim
from v6fwd.relay.netns_rules import MARK, Inside, listening
from v6fwd.relay.sockets import ClientRefusedError, NotPermittedError, RelayError
from v6fwd.relay.spaces import Spaces
from v6fwd.relay.target import Target

LOOK_AGAIN = 2.0
"""Seconds after which a dial looks once more who listens; a look takes a tenth of a millisecond."""
LOOK_AT_MOST = 0.05
"""Seconds between two looks, however many dials fail."""

NO_WAYS = Ways()


class Reached(NamedTuple):
    """Where a UDP session leads: a way inside a namespace, as somebody."""

    inside: Inside
    way: Way


class TransparentTarget(Target):
    """What both kinds have in common: who can be shown, and what becomes of the others."""

    holds = True

    def __init__(self, endpoint: Endpoint, options: Transparent, spaces: Spaces) -> None:
        super().__init__(endpoint, spaces.engine)
        self._options = options
        self._spaces = spaces
        self._hidden = Hidden()
        self._unusable = ""

    async def resolve(self) -> None:
        """See Target. Raises RelayError where clients cannot be shown and must be."""
        await super().resolve()
        self._try_out_unless_fallback()

    def resolve_later(self, then: Callable[[], None]) -> None:
        """See Target. What does not work is told, and tried again when a client comes."""

        def resolved() -> None:
            try:
                self._try_out_unless_fallback()
            except RelayError as error:
                self._out_of_order(error)
            then()

        super().resolve_later(resolved)

    def _try_out_unless_fallback(self) -> None:
        try:
            self._try_out()
        except RelayError as error:
            self._give_up_unless_fallback(error)

    def _try_out(self) -> None:
        """Whether all is there and allowed. Raises RelayError."""

    def why_hidden(self, source: Address) -> str | None:
        """Why a client cannot be shown; None where it can. Raises OSError: nobody is there."""
        return self._unusable or self._hidden.why(source.packed)

    def header_writer(self, writer: HeaderWriter | None) -> HeaderWriter | None:  # noqa: ARG002
        """See Target: the header is for those who are not shown."""
        if self._options.fallback is not TransparentFallback.PROXY_V2:
            return None
        write = write_v2 if self.endpoint.protocol is Protocol.TCP else write_v2_dgram

        def write_for_hidden(source: Address, destination: Address) -> bytes:
            try:
                hidden = self.why_hidden(source)
            except OSError:
                hidden = None
            return write(source, destination) if hidden else b""

        return write_for_hidden

    def _falls_back(self, source: Address) -> bool:
        """Whether the fallback serves a client. Raises ClientRefusedError, and OSError."""
        why = self.why_hidden(source)
        if why is None:
            return False
        if self._options.fallback is TransparentFallback.REFUSE:
            raise ClientRefusedError(
                f"{why}; --transparent-fallback none or proxy-v2 would serve it"
            )
        return True

    def _give_up_unless_fallback(self, error: RelayError) -> None:
        """Without a fallback, what does not work ends the start. With one, all clients get it
        where a right is missing; what is merely not there yet is looked for again."""
        fallback = self._options.fallback
        if fallback is TransparentFallback.REFUSE:
            raise error
        if isinstance(error, NotPermittedError):
            self._unusable = str(error)
        self._spaces.log.limited(
            f"fallback {self.endpoint}",
            "fallback",
            f"{self.endpoint} cannot see its clients, who fall back to {fallback}: {error}",
            burst=1,
            target=self.endpoint,
            fallback=fallback,
        )

    def _pseudo(self, source: Address) -> str:
        try:
            store = self._spaces.store(self._options.pseudo_store)
            is_proven = self.endpoint.protocol is Protocol.TCP
            bits = self._options.pseudo_bits
            return ip_text(store.address_of(source.packed, bits, is_proven=is_proven))
        except RelayError as error:
            raise self._out_of_order(error) from error

    def _out_of_order(self, error: RelayError) -> OSError:
        """Say what is wrong; the flow fails as if nobody listened."""
        text = f"cannot show clients to {self.endpoint}: {error}"
        self._spaces.log.limited(f"transparent {self.endpoint}", "transparent", text, burst=1)
        return OSError(errno.ECONNREFUSED, "")


class InsideTarget(TransparentTarget):
    """A target in a network namespace that we can enter."""

    def __init__(self, endpoint: Endpoint, options: Transparent, spaces: Spaces) -> None:
        super().__init__(endpoint, options, spaces)
        self._packed = ipaddress.ip_address(endpoint.host).packed
        self._inside: Inside | None = None
        self._ways = NO_WAYS
        self._prepared: dict[Way, tuple[int, int]] = {}
        self._looked_at = float("-inf")
        spaces.join(options.netns)

    def _try_out(self) -> None:
        name = self._options.netns
        self._inside = inside = self._spaces.inside(name)
        self._hidden = Hidden(_nets_of(inside))
        own = {net.packed for net in inside.addresses}
        if self._packed not in own and not is_loopback(self._packed):
            has = ", ".join(ip_text(packed) for packed in own) or "none"
            raise RelayError(
                f"{self.endpoint.host} is no address of network namespace {name}, which has {has}"
            )
        inside.accept_loopback(socket.AF_INET, self.endpoint.port)
        if not may_claim(self._make):
            raise NotPermittedError(
                f"cannot take clients' addresses in network namespace {name}: needs CAP_NET_RAW"
            )

    def why_hidden(self, source: Address) -> str | None:
        """See TransparentTarget."""
        if self._unusable:
            return self._unusable
        self._look_if_due()
        way = self._ways.for_v4 if len(source.packed) == 4 else self._ways.for_v6
        if way is None and self._ways == NO_WAYS:
            raise OSError(errno.ECONNREFUSED, "")
        why = self._hidden.why(source.packed)
        return why or (None if way else "the target does not listen for IPv4 clients")

    def dial(self, number: int, source: Address | None = None) -> int:
        """See Target."""
        assert source is not None
        try:
            if self._falls_back(source):
                return super().dial(number)
            way = self._way_of(source)
            claim, family = self._claim(way, source)
            sockaddr = (ip_text(way.destination), self.endpoint.port)
            return dial_as(self._make, family, claim, sockaddr)
        except RelayError as error:
            raise self._out_of_order(error) from error

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:
        """See Target."""
        try:
            if self._falls_back(source):
                return super().connect_datagrams(source)
            way = self._way_of(source)
            assert self._inside is not None
            reached = Reached(self._inside, way)
            claim, family = self._claim(way, source)
            sockaddr = (ip_text(way.destination), self.endpoint.port)
            if not way.is_pseudo:
                self._inside.client_came(source)
            try:
                return connect_datagrams_as(self._make, family, claim, sockaddr), reached
            except BaseException:
                self.client_left(reached, source)
                raise
        except RelayError as error:
            raise self._out_of_order(error) from error

    def has_moved(self, address: Any) -> bool:
        """See Target. `was_refused` has looked for where it is now."""
        if not isinstance(address, Reached):
            return super().has_moved(address)
        known = (self._ways.for_v4, self._ways.for_v6)
        return address.inside is not self._inside or address.way not in known

    def was_refused(self, address: Any) -> None:
        """See Target."""
        if isinstance(address, Reached):
            self._look_again()
        else:
            super().was_refused(address)

    def client_left(self, address: Any, source: Address) -> None:
        """See Target."""
        if isinstance(address, Reached) and not address.way.is_pseudo:
            address.inside.client_left(source)

    def refresh(self, then: Callable[[], None]) -> bool:
        """See Target: look who listens now."""
        before = self._inside, self._ways
        self._look_again()
        if (self._inside, self._ways) == before or self._ways == NO_WAYS:
            return False
        self._engine.loop.call_soon(then)
        return True

    def close(self) -> None:
        """See Target."""
        self._inside = None
        self._spaces.leave(self._options.netns)

    # -- the way --

    def _look_if_due(self) -> None:
        """Raises OSError where the namespace is not there."""
        age = self._engine.clock() - self._looked_at
        if age > LOOK_AGAIN or (age > LOOK_AT_MOST and self._ways == NO_WAYS):
            self._look()

    def _way_of(self, source: Address) -> Way:
        """The way for a client that is not hidden."""
        way = self._ways.for_v4 if len(source.packed) == 4 else self._ways.for_v6
        assert way is not None
        return way

    def _look_again(self) -> None:
        """Look soon after the last time, but not at every failure."""
        if self._engine.clock() - self._looked_at > LOOK_AT_MOST:
            try:
                self._look()
            except OSError:
                self._ways = NO_WAYS

    def _look(self) -> None:
        """See who listens, in the namespace that the name leads to now."""
        name = self._options.netns
        self._looked_at = self._engine.clock()
        self._ways = NO_WAYS
        self._prepared.clear()
        self._spaces.check(name)
        try:
            inside = self._spaces.inside(name)
        except RelayError as error:
            self._inside = None
            raise self._out_of_order(error) from error
        if inside is not self._inside:
            self._inside = inside
            self._hidden = Hidden(_nets_of(inside))
        bound = listening(inside, self.endpoint.protocol, self.endpoint.port)
        self._ways = find_ways(bound, self._packed)

    def _claim(self, way: Way, source: Address) -> tuple[Claim, int]:
        """Whom to speak as, and in which family; what that needs is put in place."""
        prepared = self._prepared.get(way)
        if prepared is None:
            prepared = self._prepared[way] = self._prepare(way)
        family, mark = prepared
        host = self._pseudo(source) if way.is_pseudo else source.host
        return Claim(host, source.port, mark=mark), family

    def _prepare(self, way: Way) -> tuple[int, int]:
        """Put the rules of a way in place; gives its family and the mark of its connections."""
        inside = self._inside
        assert inside is not None
        family = socket.AF_INET if len(way.destination) == 4 else socket.AF_INET6
        protocol, port = self.endpoint.protocol, self.endpoint.port
        if way.is_pseudo:
            inside.accept_pseudo(protocol, port)
        elif protocol is Protocol.UDP:
            inside.accept_datagrams(family, port)
        elif way.is_loopback:
            inside.accept_loopback(family, port)
        else:
            inside.accept_marked(family)
            return family, MARK
        return family, 0

    def _make(self, family: int, kind: int) -> socket.SocketType:
        assert self._inside is not None
        namespace = self._inside.namespace
        namespace.enter()
        try:
            return socket.SocketType(family, kind, 0)
        finally:
            namespace.leave()


class AcrossTarget(TransparentTarget):
    """A target that is reached over the network: IPv6 clients come from pseudo addresses."""

    def _try_out(self) -> None:
        self._spaces.speak_as_pseudo()
        self._spaces.store(self._options.pseudo_store)

    def why_hidden(self, source: Address) -> str | None:
        """See TransparentTarget."""
        self._need_addresses()
        if len(source.packed) == 4:
            return "an IPv4 client, and the target is in no known network namespace"
        if not any(family == socket.AF_INET for family, _ in self._addresses):
            return "the target has no IPv4 address"
        return super().why_hidden(source)

    def dial(self, number: int, source: Address | None = None) -> int:
        """See Target."""
        assert source is not None
        if self._falls_back(source):
            return super().dial(number)
        family, sockaddr = self._addresses[number]
        if family != socket.AF_INET:
            raise OSError(errno.EAFNOSUPPORT, "")
        return dial_as(socket.SocketType, family, self._claim(source), sockaddr)

    def connect_datagrams(self, source: Address) -> tuple[int, Any]:
        """See Target."""
        if self._falls_back(source):
            return super().connect_datagrams(source)
        family, sockaddr = address = self.datagram_address
        claim = self._claim(source)
        return connect_datagrams_as(socket.SocketType, family, claim, sockaddr), address

    def _claim(self, source: Address) -> Claim:
        try:
            self._spaces.speak_as_pseudo()
        except RelayError as error:
            raise self._out_of_order(error) from error
        return Claim(self._pseudo(source), source.port, is_foreign=False)


def make_target(forward: Forward, spaces: Spaces) -> TransparentTarget:
    """The target of a transparent forward."""
    kind = InsideTarget if forward.transparent.netns else AcrossTarget
    return kind(forward.target, forward.transparent, spaces)


def _nets_of(inside: Inside) -> list[IPNetwork]:
    return [
        ipaddress.ip_network((net.packed, net.length), strict=False) for net in inside.addresses
    ]
